// What a person does on the page, step by step; prints after each what the page shows, as JSON, one line a step.

import { Happening, PAGE } from "./document.mjs";

const id = (name) => document.getElementById(name);
const all = (selector) => document.querySelectorAll(selector);
const press = (node, key, held = {}) => node.dispatch(new Happening("keydown", { key, ...held }));
const tags = () => all(".chip").map((chip) => chip.childNodes[0].textContent);

async function until(what, test) {
  for (let tries = 0; tries < 400; tries += 1) {
    if (test()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`waited in vain until ${what}; the page shows: ${document.body.textContent}`);
}

function tell(step, shown) {
  console.log(JSON.stringify({ step, shown }));
}

await import(`${PAGE}/app.js`);
await until("three pictures are there", () => all(".cell").length === 3 && tags().length === 3);
tell("start", tags());

press(all(".chip")[0], "ArrowRight", { altKey: true });
await until("the tag has moved", () => tags()[1] === "1girl");
tell("move", tags());

id("add").value = "smile";
press(id("add"), "Enter");
await until("the tag is there", () => tags().length === 4 && document.activeElement.id === "add");
tell("add", tags());

press(all(".chip")[3], "Delete");
await until("it is gone", () => tags().length === 3);
id("undo").click();
await until("it is back", () => tags().length === 4);
tell("undo", tags());

id("filter").value = "tokens>";
id("search").dispatch(new Happening("submit"));
await until("the fault is told", () => !id("fault").hidden);
tell("fault", id("fault").textContent);
id("filter").value = "long hair AND red_eyes";
id("search").dispatch(new Happening("submit"));
await until("one picture is left", () => all(".cell").length === 1 && id("fault").hidden);
tell("filter", all(".cell").map((cell) => cell.querySelector("b").textContent));
id("filter").value = "";
id("search").dispatch(new Happening("submit"));
await until("all are there", () => all(".cell").length === 3);

press(id("gallery"), "a", { ctrlKey: true });
await until("all are selected", () => id("side").textContent.includes("3 selected"));
const form = all("form").find((node) => node.elements.tags);
form.elements.tags.value = "wings";
form.dispatch(new Happening("submit"));
await until("the preview is there", () => form.querySelectorAll("ins").length === 3);
document.activeElement.click();
await until("it is saved", () => id("status").textContent === "Saved: 3");
tell("batch", form.querySelectorAll("ins").map((node) => node.textContent));

press(id("gallery"), "Home");
await until("the first is chosen", () => id("side").children[0]?.textContent === "a.png" && tags().includes("wings"));
press(id("gallery"), "o");
await until("the picture is open", () => id("stage").open);
id("stage").querySelectorAll("[aria-pressed]")[1].click();
const canvas = id("stage").querySelector("canvas");
canvas.dispatch(new Happening("pointerdown", { clientX: 6, clientY: 6 }));
canvas.dispatch(new Happening("pointermove", { clientX: 15, clientY: 12 }));
canvas.dispatch(new Happening("pointerup"));
press(canvas, "Enter");
await until("the crop is saved", () => id("status").textContent === "Saved: 1");
id("stage").close();

press(id("gallery"), "x");
await until("it is set aside", () => id("side").textContent.includes("Set aside: by hand"));
press(id("gallery"), "ArrowRight");
await until("the second is chosen", () => id("side").children[0]?.textContent === "b.png");
all("button").find((button) => button.textContent === "As text").click();
await until("the text is there", () => id("text"));
id("text").value = "A sentence, by hand.";
press(id("text"), "Enter", { ctrlKey: true });
await until("the third is chosen", () => id("side").children[0]?.textContent === "c.png");

id("show-overview").click();
await until("the overview is open", () => id("overview").open);
tell("overview", id("overview").textContent.includes("wings"));
id("overview").close();
id("language").value = "ru";
id("language").dispatch(new Happening("change", { target: id("language") }));
tell("russian", id("undo").textContent);
process.exit(0);
