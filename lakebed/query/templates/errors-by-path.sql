-- title: Errors by path
-- category: errors
-- description: Paths with the most failed requests, and the fraction that failed.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: errors_from integer = 400: the lowest status that is an error; 500 leaves out errors of clients
-- param: limit integer = 100: maximum number of rows
SELECT path, count(*) FILTER (status_code >= $errors_from) AS errors, count(*) AS count, errors / count(*) AS error_rate
FROM events WHERE timestamp >= $start AND timestamp < $end AND (duration_ms IS NOT NULL OR status_code IS NOT NULL)
GROUP BY path HAVING count(*) FILTER (status_code >= $errors_from) > 0 ORDER BY errors DESC, path LIMIT $limit
