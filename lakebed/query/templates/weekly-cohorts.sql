-- title: Weekly cohorts
-- category: cohorts
-- description: People by the week of their first event in the range, and the number of them who came in each later week.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
WITH weeks AS (
    SELECT DISTINCT person_id, CAST(date_trunc('week', timestamp) AS DATE) AS week FROM events
    WHERE timestamp >= $start AND timestamp < $end AND person_id IS NOT NULL
), people AS (SELECT *, min(week) OVER (PARTITION BY person_id) AS cohort FROM weeks)
SELECT cohort, (week - cohort) // 7 AS weeks_later, count(*) AS people
FROM people GROUP BY ALL ORDER BY cohort, weeks_later
