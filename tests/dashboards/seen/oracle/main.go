// Says what Grafana's own LongToWide makes of frames: one JSON case a line in, its answer a line out.
//
//	go run . < cases.jsonl > answers.jsonl
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

type column struct {
	Name   string            `json:"name"`
	Type   string            `json:"type"`
	Labels map[string]string `json:"labels,omitempty"`
	Values []any             `json:"values"`
}

type question struct {
	Fill   *string  `json:"fill"`
	Value  float64  `json:"value"`
	Fields []column `json:"fields"`
}

type answer struct {
	Error  string   `json:"error,omitempty"`
	Fields []column `json:"fields,omitempty"`
}

func field(c column) *data.Field {
	switch c.Type {
	case "time":
		values := make([]*time.Time, len(c.Values))
		for i, v := range c.Values {
			if v != nil {
				at := time.UnixMilli(int64(v.(float64))).UTC()
				values[i] = &at
			}
		}
		return data.NewField(c.Name, nil, values)
	case "string":
		return data.NewField(c.Name, nil, pointers[string](c.Values))
	case "boolean":
		return data.NewField(c.Name, nil, pointers[bool](c.Values))
	default:
		return data.NewField(c.Name, nil, pointers[float64](c.Values))
	}
}

func pointers[T any](in []any) []*T {
	out := make([]*T, len(in))
	for i, v := range in {
		if v != nil {
			one := v.(T)
			out[i] = &one
		}
	}
	return out
}

func wide(q question) answer {
	frame := data.NewFrame("")
	for _, c := range q.Fields {
		frame.Fields = append(frame.Fields, field(c))
	}
	var fill *data.FillMissing
	switch {
	case q.Fill == nil:
	case *q.Fill == "null":
		fill = &data.FillMissing{Mode: data.FillModeNull}
	case *q.Fill == "previous":
		fill = &data.FillMissing{Mode: data.FillModePrevious}
	default:
		fill = &data.FillMissing{Mode: data.FillModeValue, Value: q.Value}
	}
	if frame.TimeSeriesSchema().Type == data.TimeSeriesTypeLong {
		var err error
		if frame, err = data.LongToWide(frame, fill); err != nil {
			return answer{Error: err.Error()}
		}
	}
	var out answer
	for _, f := range frame.Fields {
		c := column{Name: f.Name, Type: "number", Labels: f.Labels, Values: make([]any, f.Len())}
		if f.Type().Time() {
			c.Type = "time"
		}
		for i := range c.Values {
			if v, ok := f.ConcreteAt(i); ok {
				if at, isTime := v.(time.Time); isTime {
					c.Values[i] = at.UnixMilli()
				} else {
					c.Values[i] = v
				}
			}
		}
		out.Fields = append(out.Fields, c)
	}
	return out
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			panic(err)
		}
		if err := out.Encode(wide(q)); err != nil {
			panic(err)
		}
	}
}
