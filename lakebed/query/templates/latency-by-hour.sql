-- title: Latency by hour
-- category: performance
-- description: Requests of each hour with their percentiles, by linear interpolation.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
SELECT date_trunc('hour', timestamp) AS time, count(*) AS count, favg(duration_ms) AS avg_ms,
    quantile_cont(duration_ms, 0.5) AS p50_ms, quantile_cont(duration_ms, 0.95) AS p95_ms,
    quantile_cont(duration_ms, 0.99) AS p99_ms
FROM events WHERE timestamp >= $start AND timestamp < $end AND duration_ms IS NOT NULL
GROUP BY time ORDER BY time
