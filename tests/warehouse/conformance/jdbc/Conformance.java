import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Objects;
import java.util.Properties;

/**
 * The official JDBC driver against a warehouse, with its defaults (blocks of LZ4 in the answers).
 * Prints one line of JSON for each check.
 */
public final class Conformance {
    private interface Run {
        Object run() throws Exception;
    }

    private static String quoted(Object value) {
        return "\"" + String.valueOf(value).replace("\\", "\\\\").replace("\"", "'").replace("\n", "\\n").replace("\t", " ") + "\"";
    }

    private static void check(String name, Object expected, Run run) {
        Object got;
        try {
            got = run.run();
        } catch (SQLException error) {
            got = error.getErrorCode() != 0 ? error.getErrorCode() : "SQLException: " + error.getMessage() + " / " + error.getCause();
        } catch (Exception error) {
            got = error.getClass().getSimpleName() + ": " + error.getMessage();
        }
        boolean ok = Objects.equals(String.valueOf(got), String.valueOf(expected));
        System.out.println("{\"check\": " + quoted(name) + ", \"ok\": " + ok + ", \"got\": " + quoted(got)
            + ", \"expected\": " + quoted(expected) + "}");
    }

    private static void story(String name, String more, Connection connection) throws Exception {
        String table = System.getenv("TGW_TABLE");
        try (Statement statement = connection.createStatement()) {
            check(name + ": select", "1 a", () -> {
                try (ResultSet rows = statement.executeQuery("SELECT toUInt8(1) AS x, 'a' AS y")) {
                    rows.next();
                    return rows.getInt("x") + " " + rows.getString(2);
                }
            });
            check(name + ": many rows", 44999850000L, () -> {
                long sum = 0;
                try (ResultSet rows = statement.executeQuery("SELECT number, toString(number) FROM numbers(300000)")) {
                    while (rows.next()) {
                        sum += rows.getLong(1);
                    }
                }
                return sum;
            });
            check(name + ": no rows", false, () -> {
                try (ResultSet rows = statement.executeQuery("SELECT toUInt64(1) AS a WHERE 0")) {
                    return rows.next();
                }
            });
            check(name + ": prepared", "it's 7", () -> {
                try (PreparedStatement prepared = connection.prepareStatement("SELECT ? AS s, ? AS n")) {
                    prepared.setString(1, "it's");
                    prepared.setInt(2, 7);
                    try (ResultSet rows = prepared.executeQuery()) {
                        rows.next();
                        return rows.getString(1) + " " + rows.getInt(2);
                    }
                }
            });
            check(name + ": insert", "1000 499500", () -> {
                try (PreparedStatement prepared = connection.prepareStatement("INSERT INTO " + table + " (a, b) VALUES (?, ?)")) {
                    for (int i = 0; i < 1000; i++) {
                        prepared.setLong(1, i);
                        prepared.setString(2, "jdbc-" + name);
                        prepared.addBatch();
                    }
                    prepared.executeBatch();
                }
                try (ResultSet rows = statement.executeQuery(
                        "SELECT count(), sum(a) FROM " + table + " WHERE b = 'jdbc-" + name + "'")) {
                    rows.next();
                    return rows.getLong(1) + " " + rows.getLong(2);
                }
            });
            check(name + ": metadata", true, () -> {
                try (ResultSet rows = connection.getMetaData().getTables(null, null, "probes", null)) {
                    return rows.next();
                }
            });
            check(name + ": columns", true, () -> {
                try (ResultSet rows = connection.getMetaData().getColumns(null, null, table, "%")) {
                    return rows.next();
                }
            });
            check(name + ": syntax error", 62, () -> statement.executeQuery("SELEC 1"));
            check(name + ": unknown table", 60, () -> statement.executeQuery("SELECT * FROM nowhere"));
        }
    }

    public static void main(String[] arguments) throws Exception {
        String url = System.getenv("TGW_CLICKHOUSE_URL").replaceFirst("^http://", "jdbc:clickhouse://");
        String database = System.getenv("TGW_CLICKHOUSE_DATABASE");
        for (String more : new String[] {"", "compress=false", "decompress=true"}) {
            Properties properties = new Properties();
            properties.setProperty("user", System.getenv("TGW_CLICKHOUSE_USER"));
            properties.setProperty("password", Files.readString(Path.of(System.getenv("TGW_CLICKHOUSE_PASSWORD_FILE"))).trim());
            for (String pair : more.split("&")) {
                if (!pair.isEmpty()) {
                    properties.setProperty(pair.split("=")[0], pair.split("=")[1]);
                }
            }
            String name = more.isEmpty() ? "defaults" : more;
            try (Connection connection = DriverManager.getConnection(url + "/" + database, properties)) {
                story(name, more, connection);
            } catch (SQLException error) {
                check(name + ": connect", "a connection", () -> error.getMessage() + " / " + error.getCause());
            }
        }
        check("no database: select", "1", () -> {
            Properties properties = new Properties();
            properties.setProperty("user", System.getenv("TGW_CLICKHOUSE_USER"));
            properties.setProperty("password", Files.readString(Path.of(System.getenv("TGW_CLICKHOUSE_PASSWORD_FILE"))).trim());
            try (Connection connection = DriverManager.getConnection(url, properties);
                    ResultSet rows = connection.createStatement().executeQuery("SELECT 1")) {
                rows.next();
                return rows.getInt(1);
            }
        });
    }
}
