# docker buildx bake: the images of one lock. `./invoke build` gives LOCK (a file in docker/locks/;
# bake reads it from the environment), the arguments and the contexts.

variable "LOCK" {
  default = "rtx"
}

group "default" {
  targets = ["trainer"]
}

target "trainer" {
  dockerfile = "docker/trainer.Dockerfile"
  target     = "trainer"
  args       = { LOCK = LOCK }
  tags       = ["affineur/trainer:${LOCK}"]
}

# The same with llama.cpp's converters and tools, for the stages that quantize.
target "exporter" {
  dockerfile = "docker/exporter.Dockerfile"
  target     = "exporter"
  contexts   = { trainer = "target:trainer" }
  tags       = ["affineur/exporter:${LOCK}"]
}

# The devcontainer: the lock's packages, the launcher's and the checks'.
target "dev" {
  inherits = ["trainer"]
  target   = "dev"
  tags     = ["affineur/trainer:dev"]
}
