# One image for every process of Flowtrail; the command says which.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN pip install --no-cache-dir uv && uv venv /opt/flowtrail
COPY requirements.lock ./
RUN uv pip install --python /opt/flowtrail/bin/python --require-hashes -r requirements.lock
COPY . .
RUN uv pip install --python /opt/flowtrail/bin/python --no-deps . ./sdk

FROM python:3.11-slim-bookworm
RUN useradd --system --create-home --home-dir /var/lib/flowtrail flowtrail
COPY --from=build /opt/flowtrail /opt/flowtrail
ENV PATH=/opt/flowtrail/bin:$PATH FLOWTRAIL_DATA=/var/lib/flowtrail
USER flowtrail
WORKDIR /var/lib/flowtrail
ENTRYPOINT ["flowtrail"]
CMD ["--help"]
