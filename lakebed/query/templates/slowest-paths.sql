-- title: Slowest paths
-- category: performance
-- description: Paths by their 95th percentile, of those with enough requests to have one.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: at_least integer = 10: minimum number of requests of a path
-- param: limit integer = 100: maximum number of rows
SELECT path, count(*) AS count, favg(duration_ms) AS avg_ms, quantile_cont(duration_ms, 0.95) AS p95_ms,
    max(duration_ms) AS max_ms
FROM events WHERE timestamp >= $start AND timestamp < $end AND duration_ms IS NOT NULL
GROUP BY path HAVING count(*) >= $at_least ORDER BY p95_ms DESC, path LIMIT $limit
