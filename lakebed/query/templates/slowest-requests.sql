-- title: Slowest requests
-- category: performance
-- description: The requests that took longest, one by one.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: at_least_ms number = 0: least duration, in milliseconds, of a request that counts
-- param: limit integer = 100: maximum number of rows
SELECT timestamp, method, path, status_code, duration_ms, user_id
FROM events WHERE timestamp >= $start AND timestamp < $end AND duration_ms >= $at_least_ms
ORDER BY duration_ms DESC, seq LIMIT $limit
