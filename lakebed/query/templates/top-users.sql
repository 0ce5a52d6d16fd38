-- title: Top people
-- category: users
-- description: People with the most events.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: limit integer = 100: maximum number of rows
SELECT person_id, count(*) AS events, count(DISTINCT event) AS kinds, min(timestamp) AS first, max(timestamp) AS last
FROM events WHERE timestamp >= $start AND timestamp < $end AND person_id IS NOT NULL
GROUP BY person_id ORDER BY events DESC, person_id LIMIT $limit
