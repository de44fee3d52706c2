# docker buildx bake: a trainer and an exporter for each lock. `./invoke build` gives the arguments and contexts.

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

# The same with llama.cpp's converters and tools, for the stages that quantize.
target "_exporter" {
  dockerfile = "docker/exporter.Dockerfile"
  target     = "exporter"
}

target "rtx-exporter" {
  inherits = ["_exporter"]
  contexts = { trainer = "target:rtx" }
  tags     = ["affineur/exporter:rtx"]
}

target "t4-exporter" {
  inherits = ["_exporter"]
  contexts = { trainer = "target:t4" }
  tags     = ["affineur/exporter:t4"]
}
