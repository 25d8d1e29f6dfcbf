/** Cornerstone3D behind one small door: a stack of slices with a labelmap over it. Loaded only when images are shown. */
import { cache, Enums, eventTarget, imageLoader, init as initCore, RenderingEngine, type Types } from "@cornerstonejs/core";
import { init as initLoader, wadors } from "@cornerstonejs/dicom-image-loader";
import * as tools from "@cornerstonejs/tools";
import type { DicomWebClient } from "@client/dicomweb";
import { colourOf } from "./palette";
import type { Overlay } from "./segmentation";
import type { Slice } from "./series";

const { MouseBindings, SegmentationRepresentations } = tools.Enums;
const VIEWPORT = "stack";
const SEGMENTATION = "ai-segmentation";
const GROUP = "review";
const LABELMAP = SegmentationRepresentations.Labelmap;

const DRAG_TOOLS = {
  window: tools.WindowLevelTool.toolName,
  pan: tools.PanTool.toolName,
  zoom: tools.ZoomTool.toolName,
  scroll: tools.StackScrollTool.toolName,
} as const;
export type DragTool = keyof typeof DRAG_TOOLS;

type Binding = tools.Types.IToolBinding;

export interface Voi {
  lower: number;
  upper: number;
}

export interface ViewerEvents {
  onSlice: (index: number) => void;
  onVoi: (voi: Voi) => void;
  /** Factor to the size at which the image fits. */
  onZoom: (zoom: number) => void;
  onError: () => void;
}

let started = false;

function startOnce(dicomWeb: DicomWebClient): void {
  if (started) return;
  started = true;
  initCore();
  // The worker pool stays small: clinic computers share their cores with the PACS viewer.
  initLoader({ maxWebWorkers: 2, beforeSend: async () => ({ Authorization: `Bearer ${await dicomWeb.token()}` }) });
  tools.init();
  for (const tool of [tools.WindowLevelTool, tools.PanTool, tools.ZoomTool, tools.StackScrollTool]) tools.addTool(tool);
}

function imageIdOf(base: string, studyUid: string, seriesUid: string, slice: Slice): string {
  return `wadors:${base}/studies/${studyUid}/series/${seriesUid}/instances/${slice.sopInstanceUid}/frames/${slice.frame}`;
}

export interface Source {
  studyInstanceUid: string;
  seriesInstanceUid: string;
  slices: Slice[];
}

export class StackViewer {
  private readonly engine: RenderingEngine;
  private readonly imageIds: string[];
  private readonly indexByKey: Map<string, number>;
  private initialVoi: Voi | undefined;
  private readonly resizes: ResizeObserver;
  /** Ends what listens; Cornerstone sends some events after the engine is gone. */
  private readonly listening = new AbortController();

  constructor(
    private readonly element: HTMLDivElement,
    dicomWeb: DicomWebClient,
    source: Source,
    private readonly events: ViewerEvents,
  ) {
    startOnce(dicomWeb);
    this.imageIds = source.slices.map((slice) =>
      imageIdOf(dicomWeb.base, source.studyInstanceUid, source.seriesInstanceUid, slice),
    );
    source.slices.forEach((slice, index) => wadors.metaDataManager.add(this.imageIds[index] ?? "", slice.instance as never));
    this.indexByKey = new Map(source.slices.map((slice, index) => [slice.key, index]));
    this.engine = new RenderingEngine(`review-${Date.now()}`);
    this.engine.enableElement({
      viewportId: VIEWPORT,
      type: Enums.ViewportType.STACK,
      element,
      defaultOptions: { background: [0, 0, 0] },
    });
    this.bindTools();
    this.listen();
    this.resizes = new ResizeObserver(() => this.engine.resize(true, true));
    this.resizes.observe(element);
  }

  private get viewport(): Types.IStackViewport {
    return this.engine.getViewport(VIEWPORT) as Types.IStackViewport;
  }

  private bindTools(): void {
    tools.ToolGroupManager.destroyToolGroup(GROUP);
    const group = tools.ToolGroupManager.createToolGroup(GROUP);
    if (!group) throw new Error("The image tools could not be started");
    for (const name of Object.values(DRAG_TOOLS)) group.addTool(name);
    group.addViewport(VIEWPORT, this.engine.id);
    this.useDragTool("window");
  }

  /** What the left mouse button and one finger do; middle pans, right and two fingers zoom, wheel scrolls, always. */
  useDragTool(tool: DragTool): void {
    const group = tools.ToolGroupManager.getToolGroup(GROUP);
    const fixed: Record<DragTool, Binding[]> = {
      window: [],
      pan: [{ mouseButton: MouseBindings.Auxiliary }],
      zoom: [{ mouseButton: MouseBindings.Secondary }, { numTouchPoints: 2 }],
      scroll: [{ mouseButton: MouseBindings.Wheel }],
    };
    const chosen = [{ mouseButton: MouseBindings.Primary }, { numTouchPoints: 1 }];
    for (const [name, always] of Object.entries(fixed) as [DragTool, Binding[]][]) {
      const bindings = name === tool ? [...chosen, ...always] : always;
      group?.setToolPassive(DRAG_TOOLS[name], { removeAllBindings: true });
      if (bindings.length) group?.setToolActive(DRAG_TOOLS[name], { bindings });
    }
  }

  private listen(): void {
    const { signal } = this.listening;
    const on = (event: string, act: () => void) => this.element.addEventListener(event, act, { signal });
    on(Enums.Events.STACK_NEW_IMAGE, () => this.events.onSlice(this.viewport.getCurrentImageIdIndex()));
    on(Enums.Events.VOI_MODIFIED, () => this.reportVoi());
    on(Enums.Events.CAMERA_MODIFIED, () => this.events.onZoom(this.viewport.getZoom()));
    const failed = () => this.events.onError();
    eventTarget.addEventListener(Enums.Events.IMAGE_LOAD_ERROR, failed);
    signal.addEventListener("abort", () => eventTarget.removeEventListener(Enums.Events.IMAGE_LOAD_ERROR, failed));
  }

  private reportVoi(): void {
    const range = this.viewport.getProperties().voiRange;
    if (range) this.events.onVoi({ lower: range.lower, upper: range.upper });
  }

  /** Shows the middle slice first, then fetches the others in the background. */
  async open(): Promise<void> {
    const middle = Math.floor(this.imageIds.length / 2);
    await this.viewport.setStack(this.imageIds, middle);
    this.viewport.render();
    const range = this.viewport.getProperties().voiRange;
    this.initialVoi = range ? { lower: range.lower, upper: range.upper } : undefined;
    this.reportVoi();
    this.events.onSlice(middle);
    tools.utilities.stackPrefetch.enable(this.element);
  }

  /** Lays the labelmaps over their slices; slices without one stay bare. */
  showOverlay(overlay: Overlay): void {
    const derived = imageLoader.createAndCacheDerivedLabelmapImages(this.imageIds);
    for (const [key, labelmap] of overlay.labelmaps) {
      const index = this.indexByKey.get(key);
      if (index === undefined) throw new Error("The segmentation belongs to slices that are not in this series");
      const target = derived[index]?.voxelManager?.getScalarData();
      if (!target || target.length !== labelmap.length) throw new Error("The segmentation does not fit the image size");
      target.set(labelmap);
    }
    tools.segmentation.removeAllSegmentations();
    // Named here, because a segment that Cornerstone does not know of cannot be hidden.
    const segments = Object.fromEntries(overlay.segments.map(({ number, label }) => [number, { segmentIndex: number, label }]));
    const data = { imageIds: derived.map((image) => image.imageId) };
    tools.segmentation.addSegmentations([
      { segmentationId: SEGMENTATION, representation: { type: LABELMAP, data }, config: { segments } },
    ]);
    tools.segmentation.addLabelmapRepresentationToViewport(VIEWPORT, [{ segmentationId: SEGMENTATION, type: LABELMAP }]);
    for (const segment of overlay.segments) this.colour(segment.number, [...colourOf(segment), 255]);
  }

  private colour(segmentNumber: number, colour: [number, number, number, number]): void {
    tools.segmentation.config.color.setSegmentIndexColor(VIEWPORT, SEGMENTATION, segmentNumber, colour);
  }

  /** `opacity` from 0 to 1 for the filling; the outline stays readable unless the overlay is off. */
  setOpacity(opacity: number): void {
    tools.segmentation.segmentationStyle.setStyle(
      { type: LABELMAP, segmentationId: SEGMENTATION },
      { fillAlpha: opacity, outlineWidth: 1, outlineOpacity: opacity === 0 ? 0 : Math.max(0.6, opacity), renderOutline: opacity > 0 },
    );
    this.viewport.render();
  }

  setVisible(segmentNumber: number, visible: boolean): void {
    tools.segmentation.config.visibility.setSegmentIndexVisibility(
      VIEWPORT,
      { segmentationId: SEGMENTATION, type: LABELMAP },
      segmentNumber,
      visible,
    );
  }

  /** Draws one segment strongly and the others faintly; undefined draws all alike. */
  highlight(overlay: Overlay, segmentNumber: number | undefined): void {
    for (const segment of overlay.segments) {
      const strong = segmentNumber === undefined || segment.number === segmentNumber;
      this.colour(segment.number, [...colourOf(segment), strong ? 255 : 70]);
    }
    this.viewport.render();
  }

  indexOf(key: string): number | undefined {
    return this.indexByKey.get(key);
  }

  async goTo(index: number): Promise<void> {
    const bounded = Math.max(0, Math.min(this.imageIds.length - 1, index));
    if (bounded !== this.viewport.getCurrentImageIdIndex()) await this.viewport.setImageIdIndex(bounded);
  }

  /** Window scaled about the one the image came with: `width` and `level` are factors, 1 leaves as is. */
  setWindow(width: number, level: number): void {
    if (!this.initialVoi) return;
    const { lower, upper } = this.initialVoi;
    const half = ((upper - lower) / 2) * width;
    const centre = ((upper + lower) / 2) * level;
    this.viewport.setProperties({ voiRange: { lower: centre - half, upper: centre + half } });
    this.viewport.render();
  }

  reset(): void {
    this.viewport.resetCamera();
    if (this.initialVoi) this.viewport.setProperties({ voiRange: this.initialVoi });
    this.viewport.render();
  }

  dispose(): void {
    this.resizes.disconnect();
    this.listening.abort();
    tools.utilities.stackPrefetch.disable(this.element);
    tools.segmentation.removeAllSegmentations();
    tools.ToolGroupManager.destroyToolGroup(GROUP);
    this.engine.destroy();
    cache.purgeCache();
  }
}
