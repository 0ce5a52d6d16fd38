-- title: Active people by day
-- category: users
-- description: People and sessions of each day, in UTC.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
SELECT CAST(timestamp AS DATE) AS date, count(DISTINCT person_id) AS people, count(DISTINCT session_id) AS sessions,
    count(*) AS events
FROM events WHERE timestamp >= $start AND timestamp < $end
GROUP BY date ORDER BY date
