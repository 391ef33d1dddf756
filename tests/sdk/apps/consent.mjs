// Opens a consent page in a real browser, reads it, fills in fields, presses a button, and tells where that led.
//   node consent.mjs URL allow|deny|datadog ['{"field": "value"}']
// With `datadog` it continues to Datadog's page and presses Allow there.
import { chromium } from "playwright-core";

const [url, decision, fields = "{}"] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--no-proxy-server"],
});
try {
  const context = await browser.newContext();
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await page.goto(url);
  const asked = await page.innerText("body");
  for (const [name, value] of Object.entries(JSON.parse(fields))) {
    const field = page.locator(`[name=${name}]`);
    await (value === true ? field.check() : field.fill(value));
  }
  await page.click(`#${decision}`);
  if (decision === "datadog") {
    await page.waitForURL(/\/oauth2\/v1\/authorize\?/);
    await page.click("#allow");
  }
  await page.waitForURL(/\/oauth\/callback\?/);
  const at = new URL(page.url());
  console.log(
    JSON.stringify({
      asked,
      path: at.pathname,
      parameters: [...at.searchParams.keys()].sort(),
      told: await page.innerText("body"),
      complaints: complaints.filter((text) => !text.includes("favicon")),
    }),
  );
} finally {
  await browser.close();
}
