# SMPLer on the CPU; docs/viewing.md says how to build and run it.
FROM python:3.11-slim

# PyTorch's own index, as PyPI's torch brings 4 GB of CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/smpler
COPY requirements.txt ./
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --requirement requirements.txt
COPY . .
# hadolint ignore=DL3013  # pyproject.toml bounds the versions
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" ".[view,web]" \
    && useradd --create-home --uid 1000 smpler \
    && install --directory --owner smpler /data

USER 1000:1000
WORKDIR /data
EXPOSE 7860 8080
ENTRYPOINT ["smpler"]
CMD ["--help"]
