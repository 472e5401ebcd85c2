// What is deployed is what Kubernetes, Docker and Compose understand: the chart is linted, its output is decoded strictly against the API's
// types, and held to what docket promises of itself.
package deploy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/releaseutil"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const chartDir = "../../deploy/helm/docket"

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func values(t *testing.T, file string) map[string]any {
	t.Helper()
	values := map[string]any{}
	if file == "" {
		return values
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// render is `helm template`.
func render(c *chart.Chart, values map[string]any) (map[string]string, error) {
	if err := chartutil.ProcessDependencies(c, values); err != nil {
		return nil, err
	}
	options := chartutil.ReleaseOptions{Name: "rel", Namespace: "policy", IsInstall: true, Revision: 1}
	all, err := chartutil.ToRenderValues(c, values, options, nil)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

func strict() runtime.Decoder {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, monitoring.AddToScheme, keda.AddToScheme} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDeserializer()
}

// objects renders and decodes; an unknown or doubled field is an error.
func objects(t *testing.T, values map[string]any) []runtime.Object {
	t.Helper()
	files, err := render(load(t), values)
	if err != nil {
		t.Fatal(err)
	}
	decoder := strict()
	var all []runtime.Object
	for name, file := range files {
		if strings.HasSuffix(name, "NOTES.txt") {
			if !strings.Contains(file, "docket runs as") {
				t.Errorf("%s: %q", name, file)
			}
			continue
		}
		for _, document := range releaseutil.SplitManifests(file) {
			if len(bytes.TrimSpace([]byte(document))) == 0 {
				continue
			}
			object, _, err := decoder.Decode([]byte(document), nil, nil)
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, document)
			}
			all = append(all, object)
		}
	}
	return all
}

func kinds(objects []runtime.Object) map[string]int {
	count := map[string]int{}
	for _, object := range objects {
		count[object.GetObjectKind().GroupVersionKind().Kind]++
	}
	return count
}

// Helm says of each symbolic link that it follows it.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

func TestTheChartIsClean(t *testing.T) {
	for _, file := range []string{"", "values/everything.yaml", "values/little.yaml"} {
		lint := action.NewLint()
		lint.Strict = true
		result := lint.Run([]string{chartDir}, values(t, file))
		for _, message := range result.Messages {
			// An icon is no need.
			if !strings.Contains(message.Error(), "icon is recommended") {
				t.Errorf("%q: %v", file, message)
			}
		}
	}
}

func TestWhatIsThere(t *testing.T) {
	for file, wanted := range map[string]map[string]int{
		"": {"Deployment": 1, "ConfigMap": 2, "Job": 1, "Service": 1, "ServiceAccount": 1, "PodDisruptionBudget": 1, "NetworkPolicy": 1},
		"values/everything.yaml": {"Deployment": 4, "ConfigMap": 8, "Job": 1, "Service": 2, "ServiceAccount": 1, "PodDisruptionBudget": 4, "NetworkPolicy": 1,
			"ScaledObject": 1, "HorizontalPodAutoscaler": 1, "ServiceMonitor": 1, "PrometheusRule": 1},
		"values/little.yaml": {"Deployment": 1, "Service": 1, "ServiceAccount": 1},
	} {
		if got := kinds(objects(t, values(t, file))); fmt.Sprint(got) != fmt.Sprint(wanted) {
			t.Errorf("%q: %v instead of %v", file, got, wanted)
		}
	}
}

func pods(all []runtime.Object) map[string]core.PodSpec {
	pods := map[string]core.PodSpec{}
	for _, object := range all {
		switch o := object.(type) {
		case *apps.Deployment:
			pods[o.Name] = o.Spec.Template.Spec
		case *batch.Job:
			pods[o.Name] = o.Spec.Template.Spec
		}
	}
	return pods
}

// The restricted level of Kubernetes' Pod Security Standards, and a root that is read-only.
func TestPodsHaveTheLeastRights(t *testing.T) {
	for _, file := range []string{"", "values/everything.yaml", "values/little.yaml"} {
		for name, pod := range pods(objects(t, values(t, file))) {
			s := pod.SecurityContext
			if !*s.RunAsNonRoot || *s.RunAsUser == 0 || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault || *pod.AutomountServiceAccountToken {
				t.Errorf("%s: %+v", name, s)
			}
			for _, c := range append(pod.InitContainers, pod.Containers...) {
				s := c.SecurityContext
				if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || fmt.Sprint(s.Capabilities.Drop) != "[ALL]" || len(s.Capabilities.Add) > 0 {
					t.Errorf("%s/%s: %+v", name, c.Name, s)
				}
				if c.Resources.Limits.Memory().IsZero() && file != "values/everything.yaml" {
					t.Errorf("%s/%s has no limit of memory", name, c.Name)
				}
			}
		}
	}
}

func TestSecretsAreReferredToAndProbesAskTheAdminPort(t *testing.T) {
	all := pods(objects(t, values(t, "values/everything.yaml")))
	for _, name := range []string{"recorder-intake", "recorder-sinks", "recorder-spikes", "recorder-setup"} {
		pod, ok := all[name]
		if !ok {
			t.Fatalf("%s is missing", name)
		}
		c := pod.Containers[0]
		var key, password bool
		for _, env := range c.Env {
			key = key || env.Name == "ELASTICSEARCH_KEY" && env.Value == "" && env.ValueFrom.SecretKeyRef.Name == "search" && env.ValueFrom.SecretKeyRef.Key == "api-key"
		}
		for _, volume := range pod.Volumes {
			password = password || volume.Name == "secret-kafka" && volume.Secret.SecretName == "kafka-docket"
		}
		if !key || !password {
			t.Errorf("%s: %+v %+v", name, c.Env, pod.Volumes)
		}
		if strings.Contains(name, "setup") {
			continue
		}
		if c.LivenessProbe.HTTPGet.Path != "/healthz" || c.ReadinessProbe.HTTPGet.Path != "/readyz" || c.Ports[0].ContainerPort != 9464 {
			t.Errorf("%s: %+v", name, c)
		}
		if *pod.TerminationGracePeriodSeconds <= 20 {
			t.Errorf("%s is killed before it has delivered what it read", name)
		}
	}
	if args := all["recorder-intake"].Containers[0].Args; strings.Join(args, " ") != "run --drain=20s --only=intake /etc/docket/envoy.yaml" {
		t.Error(args)
	}
}

// Uploads go to what takes them, and to nothing else.
func TestTheDoorHasAServiceOfItsOwn(t *testing.T) {
	all := objects(t, values(t, "values/everything.yaml"))
	var service *core.Service
	for _, object := range all {
		if s, ok := object.(*core.Service); ok && s.Name == "recorder-door" {
			service = s
		}
	}
	if service == nil {
		t.Fatal("there is no service for the door")
	}
	selected := []string{}
	for _, object := range all {
		deployment, ok := object.(*apps.Deployment)
		if !ok {
			continue
		}
		fits := true
		for name, value := range service.Spec.Selector {
			fits = fits && deployment.Spec.Template.Labels[name] == value
		}
		if fits {
			selected = append(selected, deployment.Name)
			if port := deployment.Spec.Template.Spec.Containers[0].Ports[1]; port.Name != "door" || port.ContainerPort != 8443 {
				t.Errorf("%+v", port)
			}
		}
	}
	if fmt.Sprint(selected) != "[recorder-door]" || service.Spec.Ports[0].Port != 8443 || service.Spec.Ports[0].TargetPort.StrVal != "door" {
		t.Errorf("%v %+v", selected, service.Spec)
	}
}

func TestTheRulesAndDashboardsAreThoseOfDeploy(t *testing.T) {
	rules, dashboards := 0, 0
	for _, object := range objects(t, values(t, "values/everything.yaml")) {
		switch o := object.(type) {
		case *monitoring.PrometheusRule:
			for _, group := range o.Spec.Groups {
				rules += len(group.Rules)
			}
			text, _ := yaml.Marshal(o)
			if !bytes.Contains(text, []byte("runbook_url: https://git.example.com/docket/docs/runbook.md#docketdown")) || bytes.Contains(text, []byte("runbook_url: docs/")) {
				t.Error("the runbook is not where the values say")
			}
			if !bytes.Contains(text, []byte("{{ $labels.")) {
				t.Error("the rules' own templates were taken for the chart's")
			}
		case *core.ConfigMap:
			for name, text := range o.Data {
				if !strings.Contains(o.Name, "-dashboard-") {
					continue
				}
				original, err := os.ReadFile("../../deploy/grafana/dashboards/" + name)
				if err != nil || strings.TrimSpace(string(original)) != strings.TrimSpace(text) {
					t.Errorf("%s differs: %v", name, err)
				}
				dashboards++
			}
		}
	}
	if rules < 10 || dashboards != 6 {
		t.Errorf("%d rules, %d dashboards", rules, dashboards)
	}
}

// Each of these is refused, by what it says.
func TestWrongValuesAreRefused(t *testing.T) {
	for _, wrong := range []string{
		"replicas: 2",
		"image: {repository: ''}",
		"image: {repository: docket, digest: 'sha256:abc'}",
		"pipelines: {opa: 'name: x'}",
		"workloads: {all: {only: [everything]}}",
		"workloads: {all: {autoscaling: {by: lag, lag: [], bootstrapServers: k}}}",
		"workloads: {'Not A Name': {}}",
		"secretEnv: {PASSWORD: in-the-clear}",
		"env: {NUMBER: 5}",
		"existingConfigMap: {name: mine}",
		"policies: {mask.yaml: 'package system.log'}",
		"policies: {'../mask.rego': 'package system.log'}",
		"policies: {mask.rego: ''}",
		"{existingConfigMap: {name: mine, files: [opa.yaml]}, policies: {mask.rego: 'package system.log'}}",
		"{existingConfigMap: {name: mine, files: [opa.yaml]}, pipelines: {opa.yaml: 'name: x'}}",
		"door: {enabled: true, port: 0}",
		"drainSeconds: 0",
		"networkPolicy: {egressPorts: [99999]}",
		"serviceMonitor: {interval: often}",
	} {
		values := map[string]any{}
		if err := yaml.Unmarshal([]byte(wrong), &values); err != nil {
			t.Fatal(err)
		}
		if _, err := render(load(t), values); err == nil || !strings.Contains(err.Error(), "values don't meet the specifications of the schema") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// What a pipeline file names beside it is there: in the pods, and in what the hook mounts.
func TestPoliciesLieBesideTheirPipelines(t *testing.T) {
	all := objects(t, values(t, "values/everything.yaml"))
	with := map[string]bool{}
	for _, object := range all {
		config, ok := object.(*core.ConfigMap)
		if !ok || config.Data["envoy.yaml"] == "" {
			continue
		}
		var pipeline struct {
			Protect struct {
				Opa struct{ Policies, Data []string }
			}
		}
		if err := yaml.Unmarshal([]byte(config.Data["envoy.yaml"]), &pipeline); err != nil {
			t.Fatal(err)
		}
		named := append(pipeline.Protect.Opa.Policies, pipeline.Protect.Opa.Data...)
		if len(named) != 2 {
			t.Fatalf("%s names %v", config.Name, named)
		}
		for _, file := range named {
			if config.Data[file] == "" {
				t.Errorf("%s has no %s", config.Name, file)
			}
		}
		with[config.Name] = true
	}
	for name, pod := range pods(all) {
		var volume string
		for _, v := range pod.Volumes {
			if v.ConfigMap != nil && with[v.ConfigMap.Name] && len(v.ConfigMap.Items) == 0 {
				volume = v.Name
			}
		}
		for _, c := range append(pod.InitContainers, pod.Containers...) {
			var folder string
			for _, mount := range c.VolumeMounts {
				if volume != "" && mount.Name == volume && mount.SubPath == "" {
					folder = mount.MountPath
				}
			}
			if args := strings.Join(c.Args, " "); folder == "" || !strings.Contains(args, folder+"/envoy.yaml") || strings.Contains(args, ".rego") {
				t.Errorf("%s/%s: %s with %q mounted", name, c.Name, args, folder)
			}
		}
	}
}

// A changed policy is a changed pipeline.
func TestAChangedPolicyMakesNewPods(t *testing.T) {
	annotation := func(policy string) string {
		values := values(t, "values/everything.yaml")
		values["policies"] = map[string]any{"mask.rego": policy}
		for _, object := range objects(t, values) {
			if deployment, ok := object.(*apps.Deployment); ok {
				return deployment.Spec.Template.Annotations["docket/pipelines"]
			}
		}
		return ""
	}
	if one, two := annotation("package system.log"), annotation("package system.log # changed"); one == "" || one == two {
		t.Errorf("%q and %q", one, two)
	}
}

// The pipeline files of the chart, with what lies beside them, for `docket check`: tests/deploy/run does it.
func TestPipelinesAreWrittenOut(t *testing.T) {
	to := os.Getenv("PIPELINES_TO")
	if to == "" {
		t.Skip("PIPELINES_TO is not set")
	}
	for i, file := range []string{"", "values/everything.yaml"} {
		for _, object := range objects(t, values(t, file)) {
			config, ok := object.(*core.ConfigMap)
			if !ok || strings.Contains(config.Name, "-dashboard-") {
				continue
			}
			folder := filepath.Join(to, fmt.Sprintf("%d-%s", i, config.Name))
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range config.Data {
				if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

var pinned = regexp.MustCompile(`:[0-9v][0-9A-Za-z._-]*$`)

func TestComposeIsUnderstood(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../../deploy/compose/compose.yaml"}, cli.WithOsEnv)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for name, service := range project.Services {
		if service.Build == nil && !pinned.MatchString(service.Image) {
			t.Errorf("%s: %s has no version", name, service.Image)
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to the world", name, port.Published)
			}
		}
		for _, volume := range service.Volumes {
			if _, err := os.Stat(volume.Source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	docket := project.Services["docket"]
	if !docket.ReadOnly || fmt.Sprint(docket.CapDrop) != "[ALL]" {
		t.Errorf("%+v", docket)
	}
	if _, err := os.Stat(filepath.Join(docket.Build.Context, docket.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
}

func TestTheDockerfileIsUnderstood(t *testing.T) {
	file, err := os.Open("../../deploy/docker/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	last := stages[len(stages)-1]
	var user string
	for _, command := range last.Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.RunCommand:
			t.Errorf("the image has no shell for %s", c)
		}
	}
	if len(stages) < 2 || !strings.Contains(last.BaseName, "distroless") || user != "65532:65532" {
		t.Errorf("%d stages, %s, %s", len(stages), last.BaseName, user)
	}
}
