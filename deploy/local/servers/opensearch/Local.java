import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/** One OpenSearch node from its Maven artifacts. usage: Local HOME PORT */
public final class Local extends Node {
    private Local(Settings settings) {
        super(
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "local"),
            List.of(Netty4Plugin.class),
            true
        );
    }

    public static void main(String[] args) throws Exception {
        Settings settings = Settings.builder()
            .put("path.home", Path.of(args[0]).toString())
            .put("cluster.name", "docket-local")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", args[1])
            .put("transport.port", "0")
            .put("transport.type", "netty4")
            .put("http.type", "netty4")
            .put("action.auto_create_index", true)
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        new Local(settings).start();
        new CountDownLatch(1).await();
    }
}
