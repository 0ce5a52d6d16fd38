-- title: Apdex by path
-- category: performance
-- description: (satisfied + tolerating / 2) / all: at most the threshold, at most four times as much; a failed request is neither.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: threshold_ms number = 500: milliseconds that satisfy
-- param: errors_from integer = 400: the lowest status that is an error; 500 leaves out errors of clients
-- param: limit integer = 100: maximum number of rows
SELECT path, count(*) AS count,
    (count(*) FILTER (NOT failed AND duration_ms <= $threshold_ms)
        + count(*) FILTER (NOT failed AND duration_ms > $threshold_ms AND duration_ms <= 4 * $threshold_ms) / 2)
        / count(*) AS apdex
FROM (SELECT path, duration_ms, coalesce(status_code >= $errors_from, false) AS failed FROM events
    WHERE timestamp >= $start AND timestamp < $end AND (duration_ms IS NOT NULL OR status_code IS NOT NULL))
WHERE failed OR duration_ms IS NOT NULL
GROUP BY path ORDER BY apdex, path LIMIT $limit
