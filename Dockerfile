# docker build --build-arg VERSION=$(git describe --tags --always) -t postbus .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /postbus .

FROM gcr.io/distroless/static:nonroot
COPY --from=build /postbus /postbus
USER 65532:65532
ENTRYPOINT ["/postbus"]
