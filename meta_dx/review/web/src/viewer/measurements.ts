// Lengths on the pictures: drawn, removed, read out and put back. Cornerstone draws them.

import { eventTarget, type Types } from "@cornerstonejs/core";
import { annotation, Enums, LengthTool, type Types as ToolTypes } from "@cornerstonejs/tools";
import { imageOf, knownImage, render } from "./engine";
import { type Length, planeOf, toPixel, toPoint } from "./lengths";

const { ANNOTATION_ADDED, ANNOTATION_COMPLETED, ANNOTATION_MODIFIED, ANNOTATION_REMOVED } = Enums.Events;

/** Calls the listener whenever a length was added, moved or removed, and while it is. */
export function onLengths(listener: () => void): void {
  for (const event of [ANNOTATION_ADDED, ANNOTATION_COMPLETED, ANNOTATION_MODIFIED, ANNOTATION_REMOVED]) {
    eventTarget.addEventListener(event, listener);
  }
}

function all(): ToolTypes.Annotation[] {
  return annotation.state.getAllAnnotations().filter((one) => one.metadata?.toolName === LengthTool.toolName);
}

/** All lengths of the case, those drawn last at the end. */
export function lengths(): Length[] {
  return all().flatMap((one) => {
    const image = knownImage(one.metadata?.referencedImageId ?? "");
    const [from, to] = (one.data.handles?.points ?? []) as Types.Point3[];
    if (image === undefined || from === undefined || to === undefined || one.annotationUID === undefined) return [];
    const plane = planeOf(image.series, image.frame);
    return [{ id: one.annotationUID, picture: image.frame.url, from: toPixel(plane, from), to: toPixel(plane, to) }];
  });
}

/** Draws lengths on the pictures that they were drawn on; those of pictures that are not registered are left out. */
export function putBack(kept: readonly Length[]): void {
  for (const { id, picture, from, to } of kept) {
    const imageId = imageOf(picture);
    const image = knownImage(imageId ?? "");
    if (imageId === undefined || image === undefined) continue;
    const plane = planeOf(image.series, image.frame);
    const made = {
      annotationUID: id,
      highlighted: false,
      invalidated: false,
      isLocked: false,
      isVisible: true,
      metadata: { toolName: LengthTool.toolName, FrameOfReferenceUID: image.study, referencedImageId: imageId },
      data: { label: "", handles: { points: [toPoint(plane, from), toPoint(plane, to)], activeHandleIndex: null }, cachedStats: {} },
    };
    annotation.state.addAnnotation(made as unknown as ToolTypes.Annotation, "");
  }
  render();
}

/** A length between two points of a pane, given in CSS pixels of its element (for the keyboard). */
export function addLength(viewport: Types.IStackViewport, from: Types.Point2, to: Types.Point2): void {
  const [a, b] = [viewport.canvasToWorld(from), viewport.canvasToWorld(to)];
  // Where slices have no place in the patient, Cornerstone's search for the nearest one would name any of them.
  LengthTool.hydrate(viewport.id, [a, b], { referencedImageId: viewport.getCurrentImageId() });
  render();
}

function remove(unwanted: readonly ToolTypes.Annotation[]): void {
  for (const { annotationUID } of unwanted) if (annotationUID !== undefined) annotation.state.removeAnnotation(annotationUID);
  render();
}

function on(imageIds: readonly string[]): ToolTypes.Annotation[] {
  const wanted = new Set(imageIds);
  return all().filter((one) => wanted.has(one.metadata?.referencedImageId ?? ""));
}

/** Removes the length that was drawn last on these pictures. */
export function removeLast(imageIds: readonly string[]): void {
  remove(on(imageIds).slice(-1));
}

/** Removes the lengths on these pictures. */
export function removeAll(imageIds: readonly string[]): void {
  remove(on(imageIds));
}
