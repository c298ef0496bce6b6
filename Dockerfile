# The replicator's own image. `make image` builds the binary on the host and uses only the last part of this file.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN mkdir -p /out/state && cp /etc/ssl/certs/ca-certificates.crt /out/ \
 && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/replicator ./cmd/replicator

FROM scratch
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/replicator /replicator
COPY --from=build --chown=65532:65532 /out/state /var/lib/replicator
ENV REPLICATOR_CONFIG=/etc/replicator/replicator.yaml
USER 65532:65532
EXPOSE 8080
VOLUME /var/lib/replicator
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=6 CMD ["/replicator", "health"]
ENTRYPOINT ["/replicator"]
CMD ["run"]
