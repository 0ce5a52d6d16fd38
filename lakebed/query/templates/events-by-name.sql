-- title: Events by name
-- category: time series
-- description: The most frequent events, and when each came first and last.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: limit integer = 100: maximum number of rows
SELECT event, count(*) AS count, count(DISTINCT person_id) AS people, min(timestamp) AS first, max(timestamp) AS last
FROM events WHERE timestamp >= $start AND timestamp < $end AND event IS NOT NULL
GROUP BY event ORDER BY count DESC, event LIMIT $limit
