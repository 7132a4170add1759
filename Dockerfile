# cryogan in a container: docker build -t cryogan . ; docker run --rm -v "$PWD:/data" cryogan --help
FROM python:3.12-slim

# Extra arguments of pip, such as an index with torch for CPUs only, which is much smaller.
ARG PIP_ARGUMENTS=""

WORKDIR /source
COPY pyproject.toml README.md LICENSE CHANGELOG.md CITATION.cff MANIFEST.in ./
COPY src ./src
RUN pip install --no-cache-dir ${PIP_ARGUMENTS} . && cryogan --version

# Files are written with the rights of the user who starts the container (docker run --user).
WORKDIR /data
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["cryogan"]
CMD ["--help"]
