// Opens pages of the HTML report in Chromium, with light and dark colours, on desktop and phone, and prints their
// layout faults.
//
//   node check.mjs PAGE.html …                exit code 1 if a page has faults
//   node check.mjs --shots FOLDER PAGE.html   draws the page as desktop, phone, dark and print into FOLDER
//
// Modules come from this folder's package-lock.json, Chromium from the system or EDGEPIPE_CHROMIUM.
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const LOOKS = [
  { name: "light", viewport: { width: 1200, height: 900 }, colorScheme: "light" },
  { name: "dark", viewport: { width: 1200, height: 900 }, colorScheme: "dark" },
  { name: "phone", viewport: { width: 360, height: 740 }, colorScheme: "light", isMobile: true },
  { name: "dark phone", viewport: { width: 360, height: 740 }, colorScheme: "dark", isMobile: true },
];
/** Pages of more bytes are checked for contrast in parts, because axe's time for it grows with the square of the size. */
const LARGE = 200_000;
/** Limit for anything of the browser, also on a busy machine, in ms. */
const PATIENCE = 300_000;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

function program() {
  const named = process.env.EDGEPIPE_CHROMIUM;
  const usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const found = named ?? usual.find((path) => existsSync(path));
  if (!found) {
    throw new Error(
      "failed to find Chromium: install it (Debian: apt-get install chromium), or set EDGEPIPE_CHROMIUM",
    );
  }
  return found;
}

/** Console messages, errors and requests of a page while it is opened. */
function listen(page) {
  const heard = [];
  page.on("console", (message) => heard.push(`console ${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => heard.push(`error: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith("file:") && !request.url().startsWith("data:")) {
      heard.push(`request to ${request.url()}`);
    }
  });
  return heard;
}

async function faults(browser, file, look) {
  const context = await browser.newContext({ ...look, bypassCSP: true });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const heard = listen(page);
  await page.goto(pathToFileURL(resolve(file)).href);
  const paint = await firstPaint(page);
  const found = [...heard];
  // Tables in closed `<details>` are checked too.
  await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
  const sideways = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  if (sideways > 0) found.push(`the page is ${sideways} px wider than the screen`);
  await page.evaluate(AXE);
  const violations = statSync(file).size > LARGE ? await inParts(page, !look.isMobile) : await run(page, {});
  for (const violation of violations) {
    const places = violation.nodes.slice(0, 3).map((node) => `\n    ${node.html.slice(0, 160)}`);
    found.push(`axe ${violation.id} (${violation.impact}), ${violation.nodes.length}×: ${violation.help}${places.join("")}`);
  }
  await context.close();
  return { found, paint };
}

/** Violations that axe finds on the page in its present state. */
async function run(page, options) {
  const all = { resultTypes: ["violations"], ...options };
  return (await page.evaluate((all) => globalThis.axe.run(document, all), all)).violations;
}

/**
 * What axe finds on a large page: every rule but contrast on the whole, then contrast on the page without its networks, and
 * on each network by itself; a phone has the colours of the desktop, so its contrast is not checked. Destroys the page.
 */
async function inParts(page, withContrast) {
  const found = await run(page, { rules: { "color-contrast": { enabled: false } } });
  if (!withContrast) return found;
  const contrast = { runOnly: ["color-contrast"] };
  const networks = await page.evaluate(() => {
    globalThis.networks = [...document.querySelectorAll("article.network")];
    for (const network of globalThis.networks) network.remove();
    return globalThis.networks.length;
  });
  if (networks === 0) throw new Error("failed to take the page apart: it has no network");
  found.push(...(await run(page, contrast)));
  for (let place = 0; place < networks; place++) {
    await page.evaluate((place) => {
      const main = document.createElement("main");
      main.append(globalThis.networks[place]);
      document.body.replaceChildren(document.querySelector("svg.definitions"), main);
    }, place);
    found.push(...(await run(page, contrast)));
  }
  return found;
}

/** Time from the start of the navigation to the first content, in ms. */
function firstPaint(page) {
  return page.evaluate(
    () =>
      new Promise((done) => {
        const told = () => performance.getEntriesByName("first-contentful-paint")[0];
        if (told()) return done(told().startTime);
        new PerformanceObserver((_, observer) => {
          if (told()) {
            observer.disconnect();
            done(told().startTime);
          }
        }).observe({ type: "paint", buffered: true });
      }),
  );
}

/** Checks the checks: faults that were inserted on purpose must be found. */
async function hears(browser, file) {
  const context = await browser.newContext({ bypassCSP: true });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const heard = listen(page);
  await page.goto(pathToFileURL(resolve(file)).href);
  await page.evaluate(() => {
    console.error("heard");
    document.body.insertAdjacentHTML("beforeend", '<img src="data:,"><p style="color:#999;background:#aaa">faint</p>');
  });
  await page.evaluate(AXE);
  const whole = await run(page, {});
  // The same in parts, with a fault within a network as well.
  await page.evaluate(() => {
    const faint = '<p style="color:#999;background:#aaa">faint</p>';
    for (const network of document.querySelectorAll("article.network")) network.insertAdjacentHTML("beforeend", faint);
  });
  const networks = await page.evaluate(() => document.querySelectorAll("article.network").length);
  const parts = await inParts(page, true);
  await context.close();
  const count = (violations, id) => violations.filter((violation) => violation.id === id).length;
  return (
    heard.some((line) => line.includes("heard")) &&
    [whole, parts].every((violations) => count(violations, "image-alt") === 1) &&
    count(whole, "color-contrast") === 1 &&
    count(parts, "color-contrast") === 1 + networks
  );
}

async function shots(browser, folder, file) {
  mkdirSync(folder, { recursive: true });
  const name = (look) => join(folder, `${basename(file, ".html")}-${look}.png`);
  const drawn = [
    { look: "desktop", viewport: { width: 1200, height: 1500 }, colorScheme: "light" },
    { look: "dark", viewport: { width: 1200, height: 1500 }, colorScheme: "dark" },
    { look: "phone", viewport: { width: 390, height: 1500 }, colorScheme: "light", isMobile: true },
  ];
  for (const { look, ...options } of drawn) {
    const page = await (await browser.newContext(options)).newPage();
    await page.goto(pathToFileURL(resolve(file)).href);
    await page.screenshot({ path: name(look) });
    console.log(`drew ${name(look)}`);
  }
  const page = await browser.newPage();
  await page.goto(pathToFileURL(resolve(file)).href);
  const pdf = name("print").replace(/png$/, "pdf");
  await page.pdf({ path: pdf, preferCSSPageSize: true, printBackground: true });
  console.log(`drew ${pdf}`);
}

const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
const browser = await chromium.launch({ executablePath: program(), args: sandbox, timeout: PATIENCE });
let failed = 0;
try {
  if (process.argv[2] === "--shots") {
    await shots(browser, process.argv[3], process.argv[4]);
  } else {
    const files = process.argv.slice(2);
    if (!(await hears(browser, files[0]))) {
      throw new Error("failed to check the pages: a fault put there on purpose was not found");
    }
    for (const file of files) {
      const paints = [];
      for (const look of LOOKS) {
        const { found, paint } = await faults(browser, file, look);
        paints.push(paint);
        failed += found.length;
        for (const fault of found) console.log(`${basename(file)}, ${look.name}: ${fault}`);
      }
      const kilobytes = (statSync(file).size / 1000).toFixed(0);
      console.log(`${basename(file)}: ${kilobytes} kB, first content after ${Math.max(...paints).toFixed(0)} ms at most`);
    }
    console.log(`${files.length} pages in ${LOOKS.length} looks: ${failed} faults`);
  }
} finally {
  await browser.close();
}
process.exitCode = failed === 0 ? 0 : 1;
