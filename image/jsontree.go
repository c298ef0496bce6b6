package image

// JSONNode is a part of a JSON document, taken apart no further than the values of SQL types inside it require: their
// text alone does not say what they are.
type JSONNode struct {
	// Text is the node as the server prints it, when it is plain JSON (IsPlain), and a scalar of an SQL type otherwise:
	// without quotes.
	Text []byte
	// SQLType is the MYSQL_TYPE_* of a scalar of an SQL type, 0 for everything else.
	SQLType          byte
	Precision, Scale int // of a DECIMAL
	// Names and Items are those of an object, Items those of an array, in which something is of an SQL type.
	Names  [][]byte
	Items  []JSONNode
	Object bool
}

// IsPlain reports whether the node's text says all about it.
func (n *JSONNode) IsPlain() bool { return n.SQLType == 0 && n.Items == nil }

// ParseJSON takes a binary JSON document apart (Value.Document).
func ParseJSON(document []byte) (JSONNode, error) {
	text, err := jsonText(document) // bounds the work below
	if err != nil || len(document) == 0 {
		return JSONNode{Text: text}, err
	}
	return parseNode(document[0], document[1:])
}

func parseNode(kind byte, b []byte) (JSONNode, error) {
	switch kind {
	case jsonOpaque:
		return parseOpaque(b)
	case jsonSmallObject, jsonLargeObject, jsonSmallArray, jsonLargeArray:
		n := JSONNode{Object: isObject(kind)}
		plain := true
		err := eachEntry(kind, b, func(key []byte, kind byte, b []byte) error {
			item, err := parseNode(kind, b)
			plain = plain && item.IsPlain()
			n.Names, n.Items = append(n.Names, key), append(n.Items, item)
			return err
		})
		if err != nil || !plain {
			return n, err
		}
	}
	p := jsonPrinter{limit: maxJSONGrowth*len(b) + 64}
	err := p.value(kind, b, 0)
	return JSONNode{Text: p.out}, err
}

func parseOpaque(b []byte) (JSONNode, error) {
	if len(b) == 0 {
		return JSONNode{}, errJSON
	}
	n := JSONNode{SQLType: b[0]}
	p := jsonPrinter{limit: maxJSONGrowth*len(b) + 64}
	if err := p.opaque(b); err != nil {
		return n, err
	}
	n.Text = p.out
	if n.SQLType == typeNewDecimal {
		data, err := jsonBytes(b[1:])
		if err != nil || len(data) < 2 {
			return n, errJSON
		}
		n.Precision, n.Scale = int(data[0]), int(data[1])
		return n, nil
	}
	n.Text = n.Text[1 : len(n.Text)-1]
	return n, nil
}
