// A drawing surface of cairo (https://www.cairographics.org) that becomes the bytes of an SVG, PNG or PDF file. The
// same calls give the same bytes: nothing of the time or the machine is in them but its fonts. Lengths are in points,
// 1/72 inch.
#pragma once

#include <cairo.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

enum class FigureKind { svg, png, pdf };

struct FigurePoint {
  double x = 0;
  double y = 0;
};

// How the curve of a run is drawn. The first 21 runs have different styles: seven colours that colour-blind people tell
// apart (Okabe and Ito, https://jfly.uni-koeln.de/color; without yellow, which is too light for a line), times three
// patterns.
struct CurveStyle {
  double red = 0, green = 0, blue = 0;
  std::vector<double> dashes;  // empty: a solid line
  int marker = 0;              // 0 disc, 1 square, 2 triangle
};
CurveStyle curve_style(size_t run);

class FigureCanvas {
 public:
  FigureCanvas(FigureKind kind, double width, double height);

  enum class Anchor { begin, middle, end };
  void set_font(double size, bool bold = false);
  // Draws black text whose baseline is at y. What is not UTF-8, and control characters, become U+FFFD.
  void text(double x, double y, std::string_view text, Anchor anchor);
  void text_upwards(double x, double y, std::string_view text);  // centred at y
  double text_width(std::string_view text);
  // Returns the text, shortened in its middle until it is at most so wide.
  std::string fitting(std::string_view text, double width);

  void line(FigurePoint from, FigurePoint to, double width, double grey);
  void rectangle(double x, double y, double width, double height, double grey);
  // Draws what is behind the next calls only inside this rectangle, until unclip().
  void clip(double x, double y, double width, double height);
  void unclip();
  // Joins the points; one with a coordinate that is not finite interrupts the curve.
  void curve(const std::vector<FigurePoint>& points, const CurveStyle& style, double width, double opacity);
  void marker(FigurePoint at, const CurveStyle& style, double size);

  // Ends the drawing and returns the file. Throws ExitCode::internal if cairo reports an error.
  std::string finish();

 private:
  struct Free {
    void operator()(cairo_surface_t* surface) const { cairo_surface_destroy(surface); }
    void operator()(cairo_t* context) const { cairo_destroy(context); }
  };
  FigureKind kind_;
  std::string bytes_;
  std::unique_ptr<cairo_surface_t, Free> surface_;
  std::unique_ptr<cairo_t, Free> context_;
};

// Returns whether a file is a picture that FigureCanvas has made.
bool is_figure(std::string_view file);

}  // namespace nibble
