package applier

import (
	"fmt"
	"strconv"

	"replicator/image"
)

// lockStatement locks the rows with the keys of the images, and returns the number of the image of each row that exists.
// The primary key is forced, so that nothing else is locked.
func (p *tablePlan) lockStatement(images [][]byte) (query string, args []any, err error) {
	var which, where rendered
	which.text = append(which.text, "SELECT CASE"...)
	for i, img := range images {
		values, err := image.Values(p.source, img)
		if err != nil {
			return "", nil, err
		}
		condition := rendered{}
		if err := p.appendCondition(&condition, values); err != nil {
			return "", nil, fmt.Errorf("table %s: %w", p.source.Name, err)
		}
		which.text = append(append(which.text, " WHEN "...), condition.text...)
		which.text = strconv.AppendInt(append(which.text, " THEN "...), int64(i), 10)
		which.args = append(which.args, condition.args...)
		if i > 0 {
			where.text = append(where.text, " OR "...)
		}
		where.text = append(append(append(where.text, '('), condition.text...), ')')
		where.args = append(where.args, condition.args...)
	}
	which.text = append(append(append(which.text, " END FROM "...), p.name...), " FORCE INDEX (PRIMARY) WHERE "...)
	which.text = append(append(which.text, where.text...), " FOR UPDATE"...)
	return string(which.text), append(which.args, where.args...), nil
}
