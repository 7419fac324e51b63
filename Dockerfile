FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --no-install-recommends --yes gcc libc6-dev
WORKDIR /source
# Nothing is installed whose hash is not in a lock. The warm path is compiled from the same sources (docs/decisions/0019),
# which takes types of all that it imports.
COPY locks locks
RUN python -m venv /build && /build/bin/pip install --no-cache-dir --require-hashes -r locks/serve.txt -r locks/compile.txt
COPY pyproject.toml setup.py README.md ./
COPY gateway gateway
RUN OSTIARY_COMPILE=1 /build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /wheels .
# What runs has no pip in it, and can trace.
RUN python -m venv --without-pip /opt/ostiary \
    && /build/bin/pip --python /opt/ostiary/bin/python install --no-cache-dir --require-hashes -r locks/serve.txt \
    && /build/bin/pip --python /opt/ostiary/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim
# Writes nothing: runs with a read-only root, any user id, and no capability.
ENV PATH=/opt/ostiary/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/ostiary /opt/ostiary
USER 10001:10001
# Proxy, management API, status: as listed in the configuration.
EXPOSE 8080 8081 8082
# For engines that look at it; the address is that of the shipped configurations. Kubernetes has probes of its own.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8082/health/live', timeout=2)"]
ENTRYPOINT ["ostiary"]
CMD ["serve", "-c", "/etc/ostiary/gateway.yaml"]
