# dagfs as a service of its own, beside a training container: deploy/compose.yaml shows how both see one directory.
#
# Debian and its own Python instead of a Python image: security fixes come from one place, and every step below runs in
# a plain Debian root as well (scripts/try-dockerfile.sh), where there is no container engine.
FROM debian:trixie-slim AS build

# venv brings pip; nothing is compiled, pycurl and msgspec come as wheels.
# No pinned versions: Debian keeps one at a time, and a pin breaks with each security fix
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-venv \
 && rm -rf /var/lib/apt/lists/*

# The environment has its final path already, since its scripts name it
RUN python3 -m venv /opt/dagfs

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY dagfs dagfs
COPY man man
COPY training training

# No cache: the layer would keep it. pip itself leaves: the image is not for installing things into
RUN /opt/dagfs/bin/pip install --no-cache-dir ".[stores]" \
 && /opt/dagfs/bin/pip uninstall --yes pip


FROM debian:trixie-slim

# fuse3: its setuid fusermount3 makes the mount for a user who may not
# user_allow_other: lets that user share the mount with root and the training's user, which is what a sidecar is for
# /etc/mtab: without it fusermount3 cannot unmount; some engines make it, others do not
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates fuse3 python3 \
 && rm -rf /var/lib/apt/lists/* \
 && echo user_allow_other >> /etc/fuse.conf \
 && ln -sf /proc/mounts /etc/mtab

# A fixed uid: the host's directory that the mount appears in is given to it by number
RUN useradd --system --uid 1000 --create-home --home-dir /var/lib/dagfs dagfs \
 && install -d -o dagfs -g dagfs -m 0700 /var/cache/dagfs /run/dagfs \
 && install -d -o dagfs -g dagfs -m 0755 /mnt/dagfs /mnt/dagfs/data

COPY --from=build /opt/dagfs /opt/dagfs

# Where dagfs keeps content, state and sockets; the mount point is one level below what the host shares, so that
# mounting and unmounting are events inside of the shared directory and reach the other container
ENV PATH=/opt/dagfs/bin:/usr/local/bin:/usr/bin:/bin \
    DAGFS_CACHE_DIR=/var/cache/dagfs \
    XDG_STATE_HOME=/var/lib \
    XDG_RUNTIME_DIR=/run \
    DAGFS_MOUNTPOINT=/mnt/dagfs/data

USER 1000:1000
WORKDIR /var/lib/dagfs

# The cache outlives the container; without a volume given, the engine makes one
VOLUME /var/cache/dagfs

# Healthy means that the daemon answers and serves; a container that waits for it may start
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s \
  CMD ["/bin/sh", "-c", "exec dagfs status \"$DAGFS_MOUNTPOINT\""]

# As PID 1 dagfs gets the engine's SIGTERM itself, unmounts, and ends
ENTRYPOINT ["dagfs"]
CMD ["--help"]
