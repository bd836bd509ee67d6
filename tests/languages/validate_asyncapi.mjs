// Prints what AsyncAPI's own parser finds wrong with the document on its command line, as JSON.
import { readFileSync } from "node:fs";
import { DiagnosticSeverity, Parser } from "@asyncapi/parser";

const text = readFileSync(process.argv[2], "utf8");
const { document, diagnostics } = await new Parser().parse(text);
const problems = diagnostics
  .filter(({ severity }) => severity <= DiagnosticSeverity.Warning)
  .map(({ code, message, path }) => ({ code, message, path: path.join(".") }));
const messages = document?.allMessages().all().map((message) => message.name()) ?? [];
console.log(JSON.stringify({ problems, messages }));
