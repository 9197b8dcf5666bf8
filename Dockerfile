# What both stages stand on: a Python of the same place and version, so that the environment made in one runs in the other.
ARG BASE=python:3.13.9-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/servicecatalog-grpc
COPY requirements requirements
RUN /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/servicecatalog-grpc/bin/python install --no-cache-dir --require-hashes -r requirements/serve.txt
COPY . .
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
 && /build/bin/pip --python /opt/servicecatalog-grpc/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="servicecatalog-grpc" \
      org.opencontainers.image.description="A gRPC façade over AWS Service Catalog" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/servicecatalog-grpc /opt/servicecatalog-grpc
# By a variable, not a flag: `servicecatalog-grpc health` reads it too, and whoever runs the image can set it anew.
ENV PATH=/opt/servicecatalog-grpc/bin:$PATH SERVICECATALOG_GRPC_LISTEN=0.0.0.0:50051
# Compiles what it takes of the base's own library. Each start, and each probe that is a command, would do so in vain.
RUN python -c "import servicecatalog_grpc.app, servicecatalog_grpc.health, servicecatalog_grpc.telemetry.providers"
# Nobody of the base. A number, because Kubernetes' runAsNonRoot cannot judge a name.
USER 65532:65532
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s CMD ["servicecatalog-grpc", "health"]
ENTRYPOINT ["servicecatalog-grpc"]
CMD ["serve"]
