/** The theme of the image area: dark, so that the eye stays adapted to the images. */
import { theme, type ThemeConfig } from "antd";
import { FONT } from "./theme";

export const DARK: ThemeConfig = {
  inherit: false,
  algorithm: theme.darkAlgorithm,
  cssVar: { key: "foramen-dark" },
  hashed: false,
  token: {
    colorPrimary: "#3fb6c9",
    colorInfo: "#3fb6c9",
    colorText: "#e4edef",
    colorTextSecondary: "#b9c8cd",
    colorTextPlaceholder: "#a9bac0",
    colorBgContainer: "#1a2930",
    colorBgElevated: "#1f3038",
    colorBgLayout: "#0c1418",
    colorBorder: "#3d545e",
    borderRadius: 5,
    fontSize: 13,
    fontFamily: FONT,
  },
};
