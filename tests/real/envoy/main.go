// Two programs of the suite in one: OPA with an ext_authz server for Envoy, and a service behind Envoy.
//
//	authz run --server ...    OPA itself, as `opa run`, with a plugin that answers as opa-envoy-plugin does
//	authz service ...         the service, with OpenTelemetry
package main

import (
	"os"

	"github.com/open-policy-agent/opa/cmd"
	"github.com/open-policy-agent/opa/v1/runtime"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "service" {
		serve(os.Args[2:])
		return
	}
	runtime.RegisterPlugin(pluginName, factory{})
	if err := cmd.RootCommand.Execute(); err != nil {
		os.Exit(1)
	}
}
