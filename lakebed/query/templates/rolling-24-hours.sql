-- title: Rolling 24 hours
-- category: time series
-- description: Events of each hour, and of the 24 hours that end with it.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
SELECT time, count,
    CAST(sum(count) OVER (ORDER BY time RANGE BETWEEN INTERVAL 23 HOURS PRECEDING AND CURRENT ROW) AS BIGINT) AS last_24_hours
FROM (SELECT date_trunc('hour', timestamp) AS time, count(*) AS count FROM events WHERE timestamp >= $start AND timestamp < $end GROUP BY time)
ORDER BY time
