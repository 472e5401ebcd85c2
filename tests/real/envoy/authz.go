package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/uuid"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/server"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/util"
)

const pluginName = "envoy_ext_authz_grpc"

// As opa-envoy-plugin's configuration, as far as the suite needs it.
type config struct {
	Addr string `json:"addr"`
	Path string `json:"path"`
}

type factory struct{}

func (factory) Validate(_ *plugins.Manager, text []byte) (any, error) {
	parsed := config{Addr: "127.0.0.1:9191", Path: "envoy/authz/allow"}
	return parsed, util.Unmarshal(text, &parsed)
}

func (factory) New(manager *plugins.Manager, parsed any) plugins.Plugin {
	manager.UpdatePluginStatus(pluginName, &plugins.Status{State: plugins.StateNotReady})
	return &extAuthz{manager: manager, config: parsed.(config)}
}

type extAuthz struct {
	auth.UnimplementedAuthorizationServer
	manager *plugins.Manager
	config  config
	server  *grpc.Server
}

func (p *extAuthz) Start(context.Context) error {
	listener, err := net.Listen("tcp", p.config.Addr)
	if err != nil {
		return err
	}
	var options []grpc.ServerOption
	// With `distributed_tracing` configured.
	if provider := p.manager.TracerProvider(); provider != nil {
		options = append(options, grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(provider), otelgrpc.WithPropagators(propagation.TraceContext{}))))
	}
	p.server = grpc.NewServer(options...)
	auth.RegisterAuthorizationServer(p.server, p)
	go p.server.Serve(listener)
	p.manager.UpdatePluginStatus(pluginName, &plugins.Status{State: plugins.StateOK})
	return nil
}

// What was asked is answered; then nobody listens.
func (p *extAuthz) Stop(context.Context) {
	p.server.GracefulStop()
}

func (p *extAuthz) Reconfigure(context.Context, any) {}

func (p *extAuthz) Check(ctx context.Context, request *auth.CheckRequest) (*auth.CheckResponse, error) {
	input, err := input(request)
	if err != nil {
		return nil, err
	}
	id := uuid.NewString()
	info := server.Info{Timestamp: time.Now().UTC(), DecisionID: id, Path: p.config.Path, Input: &input, Metrics: metrics.New()}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		info.TraceID, info.SpanID = span.TraceID().String(), span.SpanID().String()
	}
	allowed, err := p.evaluate(ctx, &info)
	if err != nil {
		return nil, err
	}
	if logger := logs.Lookup(p.manager); logger != nil {
		if err := logger.Log(ctx, &info); err != nil {
			return nil, err
		}
	}
	return response(allowed, id)
}

func (p *extAuthz) evaluate(ctx context.Context, info *server.Info) (bool, error) {
	txn, err := p.manager.Store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return false, err
	}
	defer p.manager.Store.Abort(ctx, txn)
	results, err := rego.New(
		rego.Query("data."+strings.ReplaceAll(p.config.Path, "/", ".")),
		rego.Compiler(p.manager.GetCompiler()), rego.Store(p.manager.Store), rego.Transaction(txn),
		rego.Input(*info.Input), rego.Metrics(info.Metrics)).Eval(ctx)
	if err != nil {
		return false, err
	}
	if len(results) == 0 {
		return false, fmt.Errorf("%s is undefined", p.config.Path)
	}
	result := results[0].Expressions[0].Value
	info.Results = &result
	allowed, _ := result.(bool)
	return allowed, nil
}

// What opa-envoy-plugin makes of a request.
func input(request *auth.CheckRequest) (any, error) {
	text, err := protojson.Marshal(request)
	if err != nil {
		return nil, err
	}
	var input map[string]any
	if err := json.Unmarshal(text, &input); err != nil {
		return nil, err
	}
	parsed, err := url.Parse(request.GetAttributes().GetRequest().GetHttp().GetPath())
	if err != nil {
		return nil, err
	}
	path, query := []any{}, map[string]any{}
	for _, part := range strings.Split(strings.Trim(parsed.Path, "/"), "/") {
		path = append(path, part)
	}
	for name, values := range parsed.Query() {
		list := []any{}
		for _, value := range values {
			list = append(list, value)
		}
		query[name] = list
	}
	input["parsed_path"], input["parsed_query"], input["parsed_body"], input["truncated_body"] = path, query, nil, false
	input["version"] = map[string]any{"ext_authz": "v3", "encoding": "protojson"}
	return input, nil
}

func response(allowed bool, decisionID string) (*auth.CheckResponse, error) {
	metadata, err := structpb.NewStruct(map[string]any{"decision_id": decisionID})
	if err != nil {
		return nil, err
	}
	response := &auth.CheckResponse{DynamicMetadata: metadata}
	if allowed {
		response.Status = &status.Status{Code: int32(code.Code_OK)}
		response.HttpResponse = &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}}
		return response, nil
	}
	response.Status = &status.Status{Code: int32(code.Code_PERMISSION_DENIED)}
	response.HttpResponse = &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
		Status: &envoytype.HttpStatus{Code: envoytype.StatusCode_Forbidden},
	}}
	return response, nil
}
