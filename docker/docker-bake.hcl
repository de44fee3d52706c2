# docker buildx bake: one target for each lock. `./invoke build` gives the arguments and contexts.

group "default" {
  targets = ["rtx"]
}

target "_trainer" {
  dockerfile = "docker/trainer.Dockerfile"
  target     = "trainer"
}

# Ampere and newer: torch 2.13.0, CUDA 13.0, driver 580 and up.
target "rtx" {
  inherits = ["_trainer"]
  args     = { LOCK = "rtx" }
  tags     = ["affineur/trainer:rtx"]
}

# Turing: torch 2.10.0, CUDA 12.8, driver 525 and up.
target "t4" {
  inherits = ["_trainer"]
  args     = { LOCK = "t4" }
  tags     = ["affineur/trainer:t4"]
}

# The devcontainer: rtx's packages, the launcher's and the checks'.
target "dev" {
  inherits = ["_trainer"]
  target   = "dev"
  args     = { LOCK = "rtx" }
  tags     = ["affineur/trainer:dev"]
}
