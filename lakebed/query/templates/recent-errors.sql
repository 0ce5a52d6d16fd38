-- title: Recent errors
-- category: errors
-- description: The newest failed requests, one by one.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: errors_from integer = 400: the lowest status that is an error; 500 leaves out errors of clients
-- param: limit integer = 100: maximum number of rows
SELECT timestamp, method, path, status_code, duration_ms, user_id, json_extract_string(properties, '$.error') AS error
FROM events WHERE timestamp >= $start AND timestamp < $end AND status_code >= $errors_from
ORDER BY timestamp DESC, seq DESC LIMIT $limit
