"""Product analytics: active users, funnels, retention, cohorts, breakdowns and the other reports."""
