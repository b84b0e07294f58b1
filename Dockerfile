# The package and nothing of yours; settings and data come as volumes or URLs.
#   docker build -t gmm-dask --build-arg EXTRAS=s3,flows .
FROM python:3.12-slim AS build
WORKDIR /src
RUN pip install --no-cache-dir "hatchling>=1.27" "ziglang==0.17.1"
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY gmm_dask gmm_dask
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

FROM python:3.12-slim
ARG EXTRAS=s3
COPY --from=build /dist /dist
RUN pip install --no-cache-dir "$(ls /dist/*.whl)[$EXTRAS]" && rm -r /dist \
    && useradd --create-home --uid 1000 gmm
USER gmm
WORKDIR /work
ENTRYPOINT ["gmm-dask"]
CMD ["--help"]
