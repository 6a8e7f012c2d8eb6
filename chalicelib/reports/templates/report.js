"use strict";
// The page names its times in UTC. This script shows them in the viewer's time zone.
const moments = new Intl.DateTimeFormat(navigator.languages.find((each) => each.startsWith("en")) ?? "en-GB", {
  day: "numeric",
  month: "long",
  year: "numeric",
  hour: "numeric",
  minute: "2-digit",
  timeZoneName: "short",
});
for (const time of document.querySelectorAll("time[datetime]"))
  time.textContent = moments.format(new Date(time.dateTime));
