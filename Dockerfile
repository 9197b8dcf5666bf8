# syntax=docker/dockerfile:1

FROM python:3.13.9-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /build && python -m venv --without-pip /opt/servicecatalog-grpc
COPY requirements requirements
RUN /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/servicecatalog-grpc/bin/python install --no-cache-dir --require-hashes -r requirements/serve.txt
COPY . .
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
 && /build/bin/pip --python /opt/servicecatalog-grpc/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.13.9-slim-bookworm
COPY --from=build /opt/servicecatalog-grpc /opt/servicecatalog-grpc
ENV PATH=/opt/servicecatalog-grpc/bin:$PATH PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s CMD ["servicecatalog-grpc", "health"]
ENTRYPOINT ["servicecatalog-grpc"]
CMD ["serve", "--listen", "0.0.0.0:50051"]
