-- title: New people by day
-- category: users
-- description: People whose first event ever lies on that day, in UTC.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
SELECT date, count(*) AS people
FROM (SELECT CAST(min(timestamp) AS DATE) AS date, min(timestamp) AS first FROM events
    WHERE person_id IS NOT NULL GROUP BY person_id)
WHERE first >= $start AND first < $end
GROUP BY date ORDER BY date
