-- title: Timeline of a person
-- category: users
-- description: All events of one person, in order.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: person text: the person_id
-- param: limit integer = 100: maximum number of rows
SELECT timestamp, type, event, session_id, properties
FROM events WHERE timestamp >= $start AND timestamp < $end AND person_id = $person
ORDER BY timestamp, seq LIMIT $limit
