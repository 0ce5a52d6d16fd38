-- title: People with errors
-- category: errors
-- description: People with the most failed requests.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: errors_from integer = 400: the lowest status that is an error; 500 leaves out errors of clients
-- param: limit integer = 100: maximum number of rows
SELECT person_id, count(*) AS errors, max(timestamp) AS last
FROM events WHERE timestamp >= $start AND timestamp < $end AND status_code >= $errors_from AND person_id IS NOT NULL
GROUP BY person_id ORDER BY errors DESC, person_id LIMIT $limit
