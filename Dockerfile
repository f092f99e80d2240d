# herald's image: one binary and the CA certificates on a slim Debian, run by a user without rights.
# scripts/image builds it, also where no registry can be reached: both bases are arguments.
ARG BUILDER=docker.io/library/rust:1-bookworm
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin herald

FROM ${BASE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/herald /usr/local/bin/herald
# SQLite's file and a config/ folder of your own go here.
RUN useradd --uid 10001 --home-dir /var/lib/herald --create-home --shell /usr/sbin/nologin herald
WORKDIR /var/lib/herald
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
VOLUME /var/lib/herald
# A published port does not reach the loopback address inside. With this, all but probes and metrics need http.token.
ENV HERALD_HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/herald"]
CMD ["run"]
