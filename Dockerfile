# The trainer on NVIDIA GPUs, one or many machines: `make image`. Dockerfile.tpu is for TPUs.

# Any Debian or Ubuntu with a CPython of 3.10 to 3.13 as `python`, its venv and its pip.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS dependencies
# `make image-check` asks for plain `tensorflow`, which is a tenth of the size, to try all else on a machine without GPUs.
ARG TENSORFLOW=tensorflow[and-cuda]
WORKDIR /build
# Without the source, so that a change there leaves this layer, the large one, as it is.
COPY setup.py pyproject.toml constraints.txt ./
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --use-pep517 \
        --constraint constraints.txt "${TENSORFLOW}" .
# Each CUDA library comes in a folder of its own, in a path that holds Python's version: one folder for LD_LIBRARY_PATH.
RUN mkdir /opt/venv/cuda \
    && find /opt/venv/lib -path '*/site-packages/nvidia/*/lib/*.so*' -exec ln -s -t /opt/venv/cuda {} +

FROM ${BASE_IMAGE}
RUN useradd --create-home --uid 1000 listwise
COPY --from=dependencies /opt/venv /opt/venv
# The driver's libraries are no part of an image: the container runtime adds them, on Vertex AI and GKE under
# /usr/local/nvidia, and elsewhere where NVIDIA_* ask for them.
ENV PATH=/opt/venv/bin:/usr/local/nvidia/bin:$PATH \
    LD_LIBRARY_PATH=/opt/venv/cuda:/usr/local/nvidia/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1 \
    LISTWISE_REQUIRE_GPU=1

# The home folder can be written and holds the source, so --workdir=runs/NAME and --config=configs/NAME.py are as in
# a checkout. The source itself is root's.
WORKDIR /home/listwise
COPY LICENSE ./
COPY trainer trainer
COPY launch launch
COPY settings settings
COPY configs configs
USER 1000:1000

ARG REVISION=unknown
LABEL org.opencontainers.image.title="listwise" \
      org.opencontainers.image.description="A training job for learning to rank, on NVIDIA GPUs." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["python", "-m", "trainer.main"]
