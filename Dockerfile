# The program: one image for `run`, `topics create`, `replay` and the rest. The model bundle and the configuration are mounted.
#
# The base by digest, so that a build of tomorrow is that of today:
#   docker build --build-arg NODE_IMAGE=node:24-slim@$(docker buildx imagetools inspect node:24-slim --format '{{.Manifest.Digest}}') .
ARG NODE_IMAGE=node:24-slim
FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY tsconfig.json tsconfig.build.json ./
COPY .ci/build.mjs .ci/
COPY schemas schemas
COPY operators operators
COPY models models
COPY infra infra
COPY streams streams
RUN npm run build && npm prune --omit=dev

FROM ${NODE_IMAGE}
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
# The local store of the partitions: mount a volume here, or every start restores from the changelog.
RUN mkdir -p /var/lib/hstu-streams && chown node:node /var/lib/hstu-streams
# By number, so that Kubernetes can see that it is not root.
USER 1000:1000
EXPOSE 9464
# SIGTERM drains: what was read is finished and committed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:9464/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "dist/streams/cli.js"]
CMD ["run", "--config", "/etc/hstu-streams/config.yaml"]
