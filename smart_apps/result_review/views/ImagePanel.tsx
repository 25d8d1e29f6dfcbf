/** Image area: the viewport, what is drawn over it and the controls around it. */
import { Problem } from "@client/components/Problem";
import { percent } from "@client/format";
import type { Session } from "@client/session";
import { useQuery } from "@tanstack/react-query";
import { forTouch } from "@client/theme";
import { DARK } from "@client/theme_dark";
import { useTouch } from "@client/touch";
import { Alert, ConfigProvider, Spin } from "antd";
import i18next from "i18next";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { largestSlice, levelOfLabel, type Overlay } from "../segmentation";
import { edgeLetters } from "../series";
import { type DragTool, StackViewer, type Voi } from "../stack_viewer";
import { loadOverlay, loadSlices, type SeriesSource } from "../pixels";
import { Legend } from "./Legend";
import type { Focus } from "./ReviewWorkspace";
import { Toolbar } from "./Toolbar";

const FIRST_OPACITY = 0.35;

interface ImagePanelProps {
  session: Session;
  source: SeriesSource;
  focus: Focus | undefined;
}

export default function ImagePanel({ session, source, focus }: ImagePanelProps) {
  const { t } = useTranslation();
  const touch = useTouch();
  const theme = touch ? forTouch(DARK) : DARK;
  const slices = useQuery({ queryKey: ["slices", source.series], queryFn: () => loadSlices(session, source), staleTime: Infinity });
  const overlay = useQuery({
    queryKey: ["overlay", source.segmentation],
    queryFn: () => loadOverlay(session, source),
    enabled: source.segmentation !== undefined,
    staleTime: Infinity,
  });
  const [element, setElement] = useState<HTMLDivElement | null>(null);
  const viewer = useRef<StackViewer | null>(null);
  const [ready, setReady] = useState(false);
  const [failure, setFailure] = useState<unknown>();
  const [overlayFailure, setOverlayFailure] = useState<unknown>();
  const [drawn, setDrawn] = useState<Overlay>();
  const [index, setIndex] = useState(0);
  const [voi, setVoi] = useState<Voi>();
  const [zoom, setZoom] = useState(1);
  // One finger goes through the slices, as it does in every viewer on a phone; two fingers zoom.
  const [tool, setTool] = useState<DragTool>(touch ? "scroll" : "window");
  const [opacity, setOpacity] = useState(FIRST_OPACITY);
  const [hidden, setHidden] = useState<ReadonlySet<number>>(new Set());

  useEffect(() => {
    if (!element || !slices.data || !source.study || !source.series) return;
    let current: StackViewer | undefined;
    try {
      const from = { studyInstanceUid: source.study, seriesInstanceUid: source.series, slices: slices.data };
      const onError = () => setFailure(new Error(i18next.t("review.imageFailed")));
      current = new StackViewer(element, session.dicomWeb, from, { onSlice: setIndex, onVoi: setVoi, onZoom: setZoom, onError });
      viewer.current = current;
      current.open().then(() => setReady(true), setFailure);
    } catch (error) {
      setFailure(error);
    }
    return () => {
      setReady(false);
      setDrawn(undefined);
      viewer.current = null;
      current?.dispose();
    };
    // Not the translation: another language must not load the images anew.
  }, [element, slices.data, source, session]);

  useEffect(() => {
    if (ready) viewer.current?.useDragTool(tool);
  }, [ready, tool]);

  useEffect(() => {
    if (!ready || !overlay.data || !viewer.current) return;
    try {
      viewer.current.showOverlay(overlay.data);
      viewer.current.setOpacity(FIRST_OPACITY);
      setDrawn(overlay.data);
    } catch (error) {
      setOverlayFailure(error);
    }
  }, [ready, overlay.data]);

  useEffect(() => {
    if (drawn) viewer.current?.setOpacity(opacity);
  }, [drawn, opacity]);

  useEffect(() => {
    for (const segment of drawn?.segments ?? []) viewer.current?.setVisible(segment.number, !hidden.has(segment.number));
  }, [drawn, hidden]);

  useEffect(() => {
    if (!drawn || !viewer.current) return;
    const number = focus ? (focus.segmentNumber ?? segmentOfLevel(drawn, focus.level)) : undefined;
    viewer.current.highlight(drawn, number);
    // Who asks for a level wants to see it, hidden or not.
    if (number !== undefined) setHidden((before) => (before.has(number) ? new Set([...before].filter((item) => item !== number)) : before));
    const key = number === undefined ? undefined : largestSlice(drawn, number);
    const target = key === undefined ? undefined : viewer.current.indexOf(key);
    if (target !== undefined) void viewer.current.goTo(target);
  }, [drawn, focus]);

  const count = slices.data?.length ?? 0;
  const goTo = useCallback((target: number) => void viewer.current?.goTo(target), []);
  const keys: Record<string, () => void> = {
    ArrowUp: () => goTo(index - 1),
    ArrowDown: () => goTo(index + 1),
    PageUp: () => goTo(index - 5),
    PageDown: () => goTo(index + 5),
    Home: () => goTo(0),
    End: () => goTo(count - 1),
    r: () => viewer.current?.reset(),
  };
  const letters = useMemo(() => {
    const instance = slices.data?.[index]?.instance;
    return instance ? edgeLetters(instance) : undefined;
  }, [slices.data, index]);
  const missing = !source.study || !source.series;
  const problem = failure ?? slices.error ?? (missing ? new Error(t("review.noSource")) : undefined);
  const noOverlay = overlay.error ?? overlayFailure;

  return (
    <ConfigProvider theme={theme}>
      <section className="image-area" aria-label={t("review.images")}>
        <Toolbar
          tool={tool}
          touch={touch}
          onTool={setTool}
          onWindow={(width, level) => viewer.current?.setWindow(width, level)}
          onReset={() => viewer.current?.reset()}
          index={index}
          count={count}
          onIndex={goTo}
          disabled={!ready}
        />
        <div
          className="viewport-wrap"
          role="application"
          aria-label={t("review.viewportHelp")}
          tabIndex={0}
          onKeyDown={(event) => {
            const act = keys[event.key];
            if (!act) return;
            event.preventDefault();
            act();
          }}
          onContextMenu={(event) => event.preventDefault()}
        >
          <div ref={setElement} className="viewport" data-testid="viewport" data-ready={ready} data-overlay={drawn !== undefined} data-slice={index} />
          {letters ? (
            <>
              <span className="edge left">{letters.left}</span>
              <span className="edge right">{letters.right}</span>
              <span className="edge top">{letters.top}</span>
              <span className="edge bottom">{letters.bottom}</span>
            </>
          ) : null}
          <div className="corner bottom-left">
            {t("review.slice", { index: index + 1, count })}
            {voi ? <div data-testid="voi">{`W ${Math.round(voi.upper - voi.lower)}  L ${Math.round((voi.upper + voi.lower) / 2)}`}</div> : null}
            <div data-testid="zoom">{percent(zoom)}</div>
          </div>
          {!ready && !problem ? (
            <div className="viewport-cover">
              <Spin description={t("review.loadingImages")} />
            </div>
          ) : null}
          {problem ? (
            <div className="viewport-cover">
              <Problem error={problem} title={t("review.imagesTitle")} />
            </div>
          ) : null}
        </div>
        {noOverlay ? <Alert type="warning" showIcon title={t("review.noOverlay")} description={String((noOverlay as Error).message)} /> : null}
        {source.segmentation === undefined ? <Alert type="info" showIcon title={t("review.noSegmentation")} /> : null}
        {drawn ? (
          <Legend overlay={drawn} hidden={hidden} onHidden={setHidden} opacity={opacity} onOpacity={setOpacity} focus={focus?.level} />
        ) : null}
      </section>
    </ConfigProvider>
  );
}

function segmentOfLevel(overlay: Overlay, level: string): number | undefined {
  return overlay.segments.find((segment) => levelOfLabel(segment.label) === level)?.number;
}
