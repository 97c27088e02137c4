// The official client of Go against a warehouse over HTTP, with each way of packing that it has.
// Prints one line of JSON for each check: {"check": ..., "ok": ..., "got": ..., "expected": ...}.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

func check(name string, got any, expected any) {
	a, b := fmt.Sprint(got), fmt.Sprint(expected)
	line, _ := json.Marshal(map[string]any{"check": name, "ok": a == b, "got": a, "expected": b})
	fmt.Println(string(line))
}

func code(err error) any {
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		return exception.Code
	}
	if err == nil {
		return "no error"
	}
	for _, part := range strings.Split(err.Error(), "Code: ")[1:] {
		return strings.SplitN(part, ".", 2)[0]
	}
	return err.Error()
}

func open(method clickhouse.CompressionMethod, settings clickhouse.Settings) (driver.Conn, error) {
	address, err := url.Parse(os.Getenv("TGW_CLICKHOUSE_URL"))
	if err != nil {
		return nil, err
	}
	password, err := os.ReadFile(os.Getenv("TGW_CLICKHOUSE_PASSWORD_FILE"))
	if err != nil {
		return nil, err
	}
	return clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP,
		Addr:     []string{address.Host},
		Auth: clickhouse.Auth{
			Database: os.Getenv("TGW_CLICKHOUSE_DATABASE"),
			Username: os.Getenv("TGW_CLICKHOUSE_USER"),
			Password: strings.TrimSpace(string(password)),
		},
		Settings:    settings,
		Compression: &clickhouse.Compression{Method: method, Level: 3},
		DialTimeout: 10 * time.Second,
	})
}

func story(name string, method clickhouse.CompressionMethod) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := open(method, nil)
	check(name+": open", err, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	check(name+": ping", conn.Ping(ctx), nil)

	var number uint64
	var text string
	err = conn.QueryRow(ctx, "SELECT toUInt64(count()), max(toString(number)) FROM numbers(100)").Scan(&number, &text)
	check(name+": select", fmt.Sprint(number, text, err), fmt.Sprint(100, "99", nil))

	named := clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{"s": "it's", "n": "7"}))
	err = conn.QueryRow(named, "SELECT {n:UInt64}, {s:String}").Scan(&number, &text)
	check(name+": parameters", fmt.Sprint(number, text, err), fmt.Sprint(7, "it's", nil))

	rows, err := conn.Query(ctx, "SELECT number, toString(number) FROM numbers(300000)")
	count, sum := 0, uint64(0)
	for err == nil && rows.Next() {
		if err = rows.Scan(&number, &text); err == nil {
			count, sum = count+1, sum+number
		}
	}
	if err == nil {
		err = rows.Err()
	}
	check(name+": many rows", fmt.Sprint(count, sum, err), fmt.Sprint(300000, 44999850000, nil))

	var none []struct {
		A uint64 `ch:"a"`
	}
	check(name+": no rows", conn.Select(ctx, &none, "SELECT toUInt64(1) AS a WHERE 0"), nil)

	var types struct {
		Tags []string          `ch:"tags"`
		Low  string            `ch:"low"`
		Null *string           `ch:"null"`
		At   time.Time         `ch:"at"`
		Map  map[string]uint64 `ch:"map"`
	}
	err = conn.QueryRow(ctx, "SELECT ['a', 'b'] AS tags, toLowCardinality('x') AS low, CAST(NULL AS Nullable(String)) AS null,"+
		" toDateTime64('2026-01-02 03:04:05.678', 3, 'UTC') AS at, map('k', toUInt64(1)) AS map").ScanStruct(&types)
	check(name+": types", fmt.Sprint(types.Tags, types.Low, types.Null, types.At.UnixMilli(), types.Map, err),
		fmt.Sprint([]string{"a", "b"}, "x", nil, 1767323045678, map[string]uint64{"k": 1}, nil))

	mark := "go-" + name
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+os.Getenv("TGW_TABLE")+" (a, b)")
	for i := uint64(0); err == nil && i < 50000; i++ {
		err = batch.Append(i, mark)
	}
	if err == nil {
		err = batch.Send()
	}
	check(name+": insert", err, nil)
	err = conn.QueryRow(ctx, "SELECT count(), sum(a) FROM "+os.Getenv("TGW_TABLE")+" WHERE b = $1", mark).Scan(&number, &sum)
	check(name+": inserted", fmt.Sprint(number, sum, err), fmt.Sprint(50000, 1249975000, nil))

	check(name+": syntax error", code(conn.Exec(ctx, "SELEC 1")), 62)
	check(name+": unknown table", code(conn.Exec(ctx, "SELECT * FROM nowhere")), 60)
	odd, err := open(method, clickhouse.Settings{"no_such_setting": 1})
	if err == nil {
		err = odd.Exec(ctx, "SELECT 1")
		odd.Close()
	}
	check(name+": unknown setting", code(err), 115)
}

func main() {
	story("plain", clickhouse.CompressionNone)
	story("lz4", clickhouse.CompressionLZ4)
	story("zstd", clickhouse.CompressionZSTD)
	story("gzip", clickhouse.CompressionGZIP)
	story("deflate", clickhouse.CompressionDeflate)
}
