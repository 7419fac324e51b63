FROM python:3.13-slim AS build
WORKDIR /source
RUN python -m venv /opt/ostiary
COPY pyproject.toml README.md ./
COPY gateway gateway
RUN /opt/ostiary/bin/pip install --no-cache-dir .

FROM python:3.13-slim
# Writes nothing: runs with a read-only root, any user id, and no capability.
ENV PATH=/opt/ostiary/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /opt/ostiary /opt/ostiary
USER 10001:10001
# Proxy, management API, status: as listed in the configuration.
EXPOSE 8080 8081 8082
ENTRYPOINT ["ostiary"]
CMD ["serve", "-c", "/etc/ostiary/gateway.yaml"]
