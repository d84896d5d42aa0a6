import { expect, test } from "vitest";
import { letters } from "../src/viewer/sides";

test("directions of the patient have their letters", () => {
  expect(letters([1, 0, 0])).toBe("L");
  expect(letters([-1, 0, 0])).toBe("R");
  expect(letters([0, 1, 0])).toBe("P");
  expect(letters([0, -1, 0])).toBe("A");
  expect(letters([0, 0, 1])).toBe("H");
  expect(letters([0, 0, -1])).toBe("F");
});

test("an oblique direction has the letters of all that it turns to, the strongest first", () => {
  expect(letters([0.6, 0.8, 0])).toBe("PL");
  expect(letters([-0.1, 0.05, -0.99])).toBe("F");
  expect(letters([0.5, -0.5, 0.7])).toBe("HLA");
});

test("a direction that nobody knows has none", () => {
  expect(letters([])).toBe("");
});
