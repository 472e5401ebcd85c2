package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
)

// The service enforces what OPA says about /own/N, which Envoy lets pass. Its clients say how it goes wrong, with the
// header x-wrong: `ignore` what OPA says, `skip` the question.
type service struct {
	opas   []string
	client *http.Client
}

func serve(args []string) {
	flags := flag.NewFlagSet("service", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "where requests come")
	opas := flags.String("opas", "", "addresses of OPAs, which are asked in turn")
	otlp := flags.String("otlp", "", "host and port that takes spans")
	flags.Parse(args)
	exporter, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpoint(*otlp), otlptracehttp.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	// Envoy samples; who comes after it does as it did.
	otel.SetTracerProvider(sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter, sdktrace.WithBatchTimeout(time.Second)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName("orders-service")))))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	s := &service{
		opas:   strings.Split(*opas, ","),
		client: &http.Client{Timeout: 20 * time.Second, Transport: otelhttp.NewTransport(http.DefaultTransport)},
	}
	log.Fatal(http.ListenAndServe(*listen, otelhttp.NewHandler(s, "orders")))
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-failure-mode-allowed", r.Header.Get("x-envoy-auth-failure-mode-allowed"))
	if !strings.HasPrefix(r.URL.Path, "/own/") || r.Header.Get("x-wrong") == "skip" {
		return
	}
	allowed, err := s.ask(r)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	case !allowed && r.Header.Get("x-wrong") != "ignore":
		w.WriteHeader(http.StatusForbidden)
	}
}

// Asks with the request's ID, or, of /own/trace/N, with the trace alone.
func (s *service) ask(r *http.Request) (bool, error) {
	input := map[string]any{"input": map[string]any{"path": r.URL.Path, "method": r.Method}}
	body, err := json.Marshal(input)
	if err != nil {
		return false, err
	}
	number, _ := strconv.Atoi(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
	opa := s.opas[number/4%len(s.opas)]
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodPost, opa+"/v1/data/orders/allow", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	if !strings.HasPrefix(r.URL.Path, "/own/trace/") {
		ask.Header.Set("x-request-id", r.Header.Get("x-request-id"))
	}
	response, err := s.client.Do(ask)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	var answer struct {
		Result bool `json:"result"`
	}
	return answer.Result, json.NewDecoder(response.Body).Decode(&answer)
}
